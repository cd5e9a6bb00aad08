"""What the student writes while it is trained, and what is common to the ways in which both models read it
(`data.sampled_texts`, `data.sampled_answers`). Of a row only what the student wrote is a target.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distillkit.alignment.encoding import Encoding
from distillkit.alignment.rows import AlignedRows
from distillkit.alignment.token_bytes import TokenBytes
from distillkit.data.examples import ROW_COLUMNS
from distillkit.data.stored_rows import Rows
from distillkit.data.text_encoder import TextEncoder, TextEncoders
from distillkit.data.training_rows import Row, identical_rows
from distillkit.errors import PreconditionError


@dataclass(frozen=True)
class Sample:
    """What the student wrote.

    Attributes:
        text: the place of the training text that it began from.
        prompt: the student's tokens before it.
        written: its tokens, the one that ended it not counted.
        ended: whether the student ended it; else it was cut off.
    """

    text: int
    prompt: tuple[int, ...]
    written: tuple[int, ...]
    ended: bool


class SampleReader(ABC):
    """How the samples of a run begin and how both models read them.

    Args:
        rows: the training texts, of `training_rows.white_box_rows`.
        texts: the same texts, with their `text`.
        new_tokens: that are written at most.

    Attributes:
        endings: tokens of which the first ends a sample.
        may_write: [V] bool, the student's tokens that a sample may have: those that spell bytes, and the endings. Other special
            tokens would mean something else to the teacher, or nothing.
    """

    def __init__(
        self, rows: Rows, texts: Rows, new_tokens: int, student: TextEncoder, end: int | None, limit: int | None = None
    ) -> None:
        self.rows, self.texts, self.new_tokens = rows, texts, new_tokens
        self.student, self.end = student, end
        self.endings = frozenset() if end is None else frozenset([end])
        self.may_write = table_of(student).lengths > 0
        if student.rows is not None:
            self.may_write[student.rows :] = False
        if limit is not None:
            self.may_write[limit:] = False
        if end is not None:
            self.may_write[end] = True

    @abstractmethod
    def prompt(self, text: int, chooser: random.Random) -> tuple[int, ...]:
        """The student's tokens that it goes on from; () where there is no room or nothing to begin with."""

    @abstractmethod
    def room(self, prompt: Sequence[int]) -> int:
        """How many tokens may follow it, the ending one not counted."""

    @abstractmethod
    def read(self, sample: Sample) -> Row | None:
        """The sample as a training row, without `id` and `cache_index`; None where the teacher cannot read any of it."""

    def row(self, sample: Sample) -> Row:
        """The sample as a training row; one without a target where there is none."""
        found = self.read(sample) if sample.prompt else None
        if found is None or found["target_spans"][0][0] == found["target_spans"][0][1]:
            whole = self.rows[sample.text]
            found = {name: whole[name] for name in ("student_ids", "teacher_ids")} | {"target_spans": []}
            found |= {name: [] for name in ROW_COLUMNS}
        return {"id": self.rows.value("id", sample.text), "cache_index": sample.text, "first_target": 1, **found}

    def _ended(self, sample: Sample, written: Sequence[int], ended: bool) -> list[int]:
        return [*sample.prompt, *written, *([self.end] if ended and self.end is not None else [])]


# --- tokens and their bytes -------------------------------------------------------------------------------------------


def table_of(encoder: TextEncoder) -> TokenBytes:
    """The bytes of its tokens.

    Raises:
        ValueError: they are not known; prepare-data refuses such a model in white box.
    """
    if encoder.table is None:
        raise ValueError("white box needs token bytes")
    return encoder.table


def spelling_table(encoder: TextEncoder) -> TokenBytes:
    """The same of a student whose text is compared with another tokenizer's reading.

    Raises:
        PreconditionError: its tokens do not spell a text.
    """
    table = table_of(encoder)
    if table.by_offsets:
        raise PreconditionError(
            "the student's tokens do not spell its text byte by byte (WordPiece), so a teacher with another tokenizer cannot "
            "score what it writes",
            hint="leave --on-policy-fraction out, or name another student",
        )
    return table


def spelled(table: TokenBytes, ids: Sequence[int]) -> bytes:
    """What ordinary tokens spell."""
    return b"".join(table.pieces[index] or b"" for index in ids)


def whole_characters(table: TokenBytes, ids: Sequence[int]) -> int:
    """How many of the tokens, from the first on, spell whole characters."""
    data = spelled(table, ids)
    try:
        data.decode()
        return len(ids)
    except UnicodeDecodeError as error:
        kept = fitting(table, ids, error.start)
    while kept and not _is_text(spelled(table, ids[:kept])):
        kept -= 1
    return kept


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def fitting(table: TokenBytes, ids: Sequence[int], size: int) -> int:
    """How many of the tokens, from the first on, have no more than so many bytes together."""
    ends = np.cumsum(table.lengths[np.asarray(ids, dtype=np.int64)])
    return int(np.searchsorted(ends, size, side="right"))


def beginning_of(whole: Encoding, kept: int) -> Encoding:
    """The first `kept` tokens of an encoding."""
    return replace(
        whole, ids=whole.ids[:kept], ends=whole.ends[:kept],
        unlike=None if whole.unlike is None else whole.unlike[:kept],
        names={place: name for place, name in whole.names.items() if place < kept},
    )  # fmt: skip


def continued(before: Encoding, table: TokenBytes, written: Sequence[int]) -> Encoding:
    """An encoding with more tokens behind it, which stand for the bytes of the vocabulary."""
    size = int(before.ends[-1]) if len(before.ends) else 0
    ends = np.cumsum(table.lengths[np.asarray(written, dtype=np.int64)]) + size
    unlike = before.unlike
    if unlike is not None:
        unlike = np.append(unlike, np.zeros(len(written), dtype=bool))
    return replace(
        before, ids=[*before.ids, *written], ends=np.append(before.ends, ends).astype(np.int64), unlike=unlike
    )


# --- rows -------------------------------------------------------------------------------------------------------------


def shared_row(ids: list[int], teacher_ids: list[int], begin: int, encoders: TextEncoders, paired: bool) -> Row:
    """A sample that both models read as the same tokens; those from `begin` on are targets."""
    spans = [(begin, len(ids))]
    row: Row = {"student_ids": ids, "teacher_ids": teacher_ids, "target_spans": spans}
    return row | (identical_rows(len(ids), len(teacher_ids), encoders.start_shift, spans) if paired else {})


def paired_row(ids: list[int], teacher_ids: list[int], begin: int, rows: AlignedRows) -> Row:
    """A sample that each model reads in its way; the student's tokens from `begin` on are targets.

    Args:
        rows: of the whole text.
    """
    # Row r predicts token r + 1; what stood there before the student wrote is no target.
    keep = rows.student_rows + 1 >= begin
    columns = {name: getattr(rows, name)[keep].tolist() for name in ROW_COLUMNS}
    return {"student_ids": ids, "teacher_ids": teacher_ids, "target_spans": [(begin, len(ids))], **columns}
