"""How a model reads texts: its tokenizer, what it puts around a text, and how much fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from distillkit.alignment.encoding import Encoding, encode_batch, encode_by_offsets, encode_loosely
from distillkit.alignment.normalising import Reading, reading_of
from distillkit.alignment.token_bytes import TokenBytes, token_bytes, token_ids
from distillkit.errors import PreconditionError


@dataclass(frozen=True)
class TextEncoder:
    """How one model reads a text.

    Attributes:
        tokenizer: the tokenizer itself.
        table: the bytes of its tokens; None where they cannot be known (lowercasing …), which only black box allows.
        start_id: put before every text, so that its first token is predicted too; None if the model has none.
        end_id: put after a text that really ends; None if the model has none.
        limit: how many tokens of text fit, the two above not counted.
        context: how many tokens the model can read at all, specials included; None where it has no limit.
        rows: of the model's embedding: higher ids cannot be read; None where every id of the tokenizer has a row.
        parse: a special token's name in a text is the token; else it is ordinary text.
        exact: the tokens have to spell a text byte for byte, because the other model's are compared with them.
        end_of_turn: the token that ends an answer in conversations; None where texts are read.
    """

    tokenizer: Any
    table: TokenBytes | None
    start_id: int | None
    end_id: int | None
    limit: int
    context: int | None = None
    rows: int | None = None
    parse: bool = False
    exact: bool = True
    end_of_turn: int | None = None

    @property
    def longest(self) -> int:
        """How many tokens fit, those around a text counted."""
        return self.limit + (self.start_id is not None) + (self.end_id is not None)

    def can_read(self, ids: Sequence[int]) -> bool:
        """Whether the model has a row for each of these tokens."""
        return self.rows is None or max(ids, default=0) < self.rows

    def with_specials(self, ids: Sequence[int], ends: bool) -> list[int]:
        """`ids` as the model reads them: start, text, end."""
        start = [] if self.start_id is None else [self.start_id]
        end = [self.end_id] if self.end_id is not None and self.adds_end(ids, ends) else []
        return [*start, *ids, *end]

    def adds_end(self, ids: Sequence[int], ends: bool) -> bool:
        """Whether the end token is put behind a text: not where the text names it there itself."""
        return ends and self.end_id is not None and not (self.parse and len(ids) > 0 and ids[-1] == self.end_id)

    def token_ids(self, text: str) -> list[int]:
        """A text as tokens without specials around it, whatever they spell."""
        return token_ids(self.tokenizer, [text], parse=self.parse)[0]

    def encode(self, texts: Sequence[str]) -> Sequence[Encoding | None]:
        """Texts as tokens without specials around them, with the byte at which each token ends; None for a text that
        cannot be read: one that the tokens do not spell, where `exact`."""
        if self.table is None:
            return encode_by_offsets(self.tokenizer, texts, parse=self.parse)
        found = encode_batch(self.tokenizer, self.table, texts, parse=self.parse)
        if self.exact or all(item is not None for item in found):
            return found
        others = [text for text, item in zip(texts, found, strict=True) if item is None]
        loose = iter(encode_loosely(self.tokenizer, self.table, others, parse=self.parse))
        return [next(loose) if item is None else item for item in found]

    def reading(self) -> Reading:
        """What the tokenizer makes of texts before it encodes them (`alignment.normalising`)."""
        if self.table is None:
            return list
        spelled = reading_of(self.tokenizer, self.table, parse=self.parse)
        if self.exact:
            return spelled

        def read(texts: Sequence[str]) -> list[str | None]:
            readable = [item is not None for item in self.encode(texts)]
            others = iter(spelled([text for text, is_readable in zip(texts, readable, strict=True) if not is_readable]))
            return [text if is_readable else next(others) for text, is_readable in zip(texts, readable, strict=True)]

        return read


@dataclass(frozen=True)
class TextEncoders:
    """How the two models of a pair read."""

    student: TextEncoder
    teacher: TextEncoder

    def for_shared_examples(self) -> TextEncoder:
        """How both read where they have one tokenizer: as the student, and no more than fits into either."""
        return replace(self.student, limit=min(self.student.limit, self.teacher.limit))

    @property
    def start_shift(self) -> int:
        """By how many tokens the teacher is ahead where both read the same tokens: it alone has a start token (1), the
        student alone has one (-1), both or none (0)."""
        return (self.teacher.start_id is not None) - (self.student.start_id is not None)

    def reading(self, *, parse: bool, exact: bool) -> TextEncoders:
        """The same models with another way to read texts.

        Args:
            parse, exact: as in `TextEncoder`.
        """
        sides = (replace(side, parse=parse, exact=exact) for side in (self.student, self.teacher))
        return TextEncoders(*sides)


def make_text_encoder(
    tokenizer: Any,
    context: int | None,
    max_length: int,
    *,
    needs_bytes: bool,
    rows: int | None = None,
    table: TokenBytes | None = None,
) -> TextEncoder:
    """The encoder of a model.

    Args:
        context: the longest input of the model, specials included; None if it has no limit.
        max_length: the longest example, specials included.
        needs_bytes: whether token bytes are indispensable (white box).
        rows: of the model's embedding, where not every id has one.
        table: the bytes of the tokens, where they have been looked up already.

    Raises:
        PreconditionError: they are, and cannot be known.
    """
    try:
        table = token_bytes(tokenizer) if table is None else table
    except PreconditionError:
        if needs_bytes or not getattr(tokenizer, "is_fast", False):
            raise
        table = None
    # A model without BOS was trained with its end-of-text token between texts, which then starts them too.
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    end = tokenizer.eos_token_id
    specials = (start is not None) + (end is not None)
    longest = max_length if context is None else min(max_length, context)
    return TextEncoder(tokenizer, table, start, end, max(1, longest - specials), context, rows)


def token_tables(encoders: TextEncoders) -> tuple[TokenBytes, TokenBytes]:
    """(teacher's, student's) bytes of tokens.

    Raises:
        ValueError: those of a tokenizer are not known; prepare-data refuses such a pair in white box.
    """
    teacher, student = encoders.teacher.table, encoders.student.table
    if teacher is None or student is None:
        raise ValueError("white box needs token bytes")
    return teacher, student
