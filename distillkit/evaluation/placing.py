"""Which bytes of a held-out text each scored token of a model spells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distillkit.alignment.encoding import Encoding
from distillkit.alignment.token_bytes import TokenBytes
from distillkit.data.text_encoder import TextEncoder
from distillkit.evaluation.held_out import Side
from distillkit.evaluation.lost_bits import PlacedText


def placed_texts(examples: Sequence[Mapping[str, Any]], encoder: TextEncoder, side: Side) -> list[PlacedText | None]:
    """The texts of `held_out.scored_texts`, each with the places of its scored tokens; None where they cannot be known.

    Args:
        examples: rows of a held-out split.
    """
    plain = [example["text"] for example in examples if example.get(f"{side}_scored") is None]
    encodings = iter(encoder.encode(plain))
    return [
        _placed(example, next(encodings), encoder, side)
        if example.get(f"{side}_scored") is None
        else _spelled(example, encoder.table, side)
        for example in examples
    ]


def _placed(
    example: Mapping[str, Any], encoding: Encoding | None, encoder: TextEncoder, side: Side
) -> PlacedText | None:
    """A text whose tokens are all scored, but for the first one where nothing predicts it."""
    begin, count = int(encoder.start_id is not None), example[f"{side}_tokens"]
    ids = example[f"{side}_ids"][begin : begin + count]
    if encoding is None or list(encoding.ids) != list(ids):
        return None
    sizes = np.diff(encoding.ends, prepend=0).astype(np.int64)
    if int(sizes.sum()) != len(example["text"].encode("utf-8", "replace")):
        return None
    places = np.arange(begin, begin + count)
    if encoder.start_id is None:
        skipped, sizes, ids, places = int(sizes[:1].sum()), sizes[1:], ids[1:], places[1:]
    else:
        skipped = 0
    return PlacedText(example["text"], skipped, sizes, np.asarray(ids, dtype=np.int64), places)


def _spelled(example: Mapping[str, Any], table: TokenBytes | None, side: Side) -> PlacedText | None:
    """The contents of a conversation that are scored, which the tokens themselves spell."""
    if table is None or table.by_offsets:
        return None
    places = np.concatenate(
        [np.zeros(0, dtype=np.int64), *(np.arange(first, last) for first, last in example[f"{side}_scored"])]
    )
    ids = np.asarray(example[f"{side}_ids"], dtype=np.int64)[places]
    pieces = [table.pieces[index] if index < len(table) else None for index in ids.tolist()]
    known = [piece for piece in pieces if piece is not None]
    data = b"".join(known)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    if len(known) != len(pieces) or len(data) != example["bytes"]:
        return None
    return PlacedText(text, 0, np.array([len(piece) for piece in known], dtype=np.int64), ids, places)
