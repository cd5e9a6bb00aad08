"""The held-out texts as one model reads them, in the form that `bits_per_byte.score` takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from distillkit.data.text_encoder import TextEncoder
from distillkit.evaluation.bits_per_byte import ScoredText

Side = Literal["student", "teacher"]


def scored_texts(examples: Iterable[Mapping[str, Any]], encoder: TextEncoder, side: Side) -> list[ScoredText]:
    """The texts that `score` takes, for the examples of a held-out split.

    Every token of the text is scored; start and end tokens are not, so that models with and without them compare. A
    model that has no start token cannot predict a text's first token: that token and its bytes are left out for it.

    Of a conversation the contents are scored of the turns that are trained on, the same bytes for both models; what the
    templates write, end-of-turn tokens included, is not.
    """
    texts = []
    for example in examples:
        ids, tokens, spans = example[f"{side}_ids"], example[f"{side}_tokens"], example.get(f"{side}_scored")
        if spans is not None:
            texts.append(ScoredText(ids, [(begin, end) for begin, end in spans], example["bytes"], example["document"]))
            continue
        first, size = 1, example["bytes"]
        if encoder.start_id is None:
            size -= _first_token_bytes(encoder, example["text"])
        last = tokens + (encoder.start_id is not None)
        texts.append(ScoredText(ids, [(first, last)], bytes=size, document=example["document"]))
    return texts


def _first_token_bytes(encoder: TextEncoder, text: str) -> int:
    encoding = encoder.encode([text])[0]
    return int(encoding.ends[0]) if encoding is not None and len(encoding.ends) else 0
