"""How a model reads texts: its tokenizer, what it puts around a text, and how much fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillkit.alignment.token_bytes import Encoding, TokenBytes, encode_batch, token_bytes
from distillkit.errors import PreconditionError


@dataclass(frozen=True)
class Reader:
    """How one model reads a text.

    Attributes:
        tokenizer: the tokenizer itself.
        table: the bytes of its tokens; None where they cannot be known (WordPiece …), which only black box allows.
        start_id: put before every text, so that its first token is predicted too; None if the model has none.
        end_id: put after a text that really ends; None if the model has none.
        limit: how many tokens of text fit, the two above not counted.
    """

    tokenizer: Any
    table: TokenBytes | None
    start_id: int | None
    end_id: int | None
    limit: int

    def with_specials(self, ids: Sequence[int], ends: bool) -> list[int]:
        """`ids` as the model reads them: start, text, end."""
        start = [] if self.start_id is None else [self.start_id]
        end = [self.end_id] if ends and self.end_id is not None else []
        return [*start, *ids, *end]

    def encode(self, texts: Sequence[str]) -> list[Encoding | None]:
        """Texts as tokens without specials, with the byte at which each token ends; None for a text that the tokens
        do not spell."""
        if self.table is not None:
            return encode_batch(self.tokenizer, self.table, texts)
        return _encode_by_offsets(self.tokenizer, texts)


@dataclass(frozen=True)
class Readers:
    """How the two models of a pair read."""

    student: Reader
    teacher: Reader


def make_reader(tokenizer: Any, context: int | None, max_length: int, *, needs_bytes: bool) -> Reader:
    """The reader of a model.

    Args:
        context: the longest input of the model, specials included; None if it has no limit.
        max_length: the longest example, specials included.
        needs_bytes: whether token bytes are indispensable (white box).

    Raises:
        PreconditionError: they are, and cannot be known.
    """
    try:
        table = token_bytes(tokenizer)
    except PreconditionError:
        if needs_bytes or not getattr(tokenizer, "is_fast", False):
            raise
        table = None
    # A model without BOS was trained with its end-of-text token between texts, which then starts them too.
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    end = tokenizer.eos_token_id
    specials = (start is not None) + (end is not None)
    longest = max_length if context is None else min(max_length, context)
    return Reader(tokenizer, table, start, end, max(1, longest - specials))


def _encode_by_offsets(tokenizer: Any, texts: Sequence[str]) -> list[Encoding | None]:
    """For tokenizers that change the text (lower case, …): where in the original each token ends."""
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    result: list[Encoding | None] = []
    for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        byte_at = np.concatenate([[0], np.cumsum([len(character.encode("utf-8", "replace")) for character in text])])
        ends = byte_at[[end for _, end in offsets]] if offsets else np.zeros(0)
        ends = np.maximum.accumulate(ends.astype(np.int64)) if len(ends) else ends.astype(np.int64)
        if len(ends):
            ends[-1] = byte_at[-1]
        result.append(Encoding(list(ids), ends))
    return result
