"""One tokenizer: the teacher's distributions over the ids that mean the same to both, also where the two put other start and
end tokens around a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from distillkit.alignment.token_bytes import common_ids
from distillkit.data.text_encoder import TextEncoders, token_tables
from distillkit.losses.chunked import SoftTargets
from distillkit.losses.mapped_mass import MappedMass
from distillkit.losses.target_rows import next_ids, restrict_columns
from distillkit.teachers.protocol import Teacher


@dataclass(frozen=True)
class OwnEnds:
    """One vocabulary, and other start and end tokens around the texts: what the teacher's rows mean to the student.

    Attributes:
        start_shift: `TextEncoders.start_shift`.
        student_end, teacher_end: the end tokens; None where there is none.
        parse: special tokens that the texts name are read as tokens, so the teacher's end token may stand inside a text.
    """

    start_shift: int
    student_end: int | None
    teacher_end: int | None
    parse: bool

    @classmethod
    def of(cls, encoders: TextEncoders) -> OwnEnds | None:
        """Those of a pair; None where both have the same tokens around a text."""
        student, teacher = encoders.student, encoders.teacher
        if (student.start_id, student.end_id) == (teacher.start_id, teacher.end_id) and not encoders.start_shift:
            return None
        return cls(encoders.start_shift, student.end_id, teacher.end_id, student.parse)

    @property
    def move(self) -> tuple[int, int] | None:
        """(the teacher's end token, the student's), where the probability of one belongs to the other."""
        if self.student_end is None or self.teacher_end is None or self.student_end == self.teacher_end:
            return None
        return self.teacher_end, self.student_end

    def teacher_column(self, logits_NU: Tensor) -> Tensor | None:
        """[N] a copy of the teacher's logits of its end token; None where nothing is moved."""
        move = self.move
        return logits_NU[:, move[0]].clone() if move is not None and move[0] < logits_NU.shape[1] else None

    def moved(self, restricted_NV: Tensor, theirs_N: Tensor, rows_N: Tensor | None = None) -> Tensor:
        """The teacher's probability of its end token added to that of the student's end token: end of text is end of text
        by whatever name. Log-weights of temperature 1; changed in place.

        Args:
            restricted_NV: the teacher's logits in the student's columns.
            theirs_N: what `teacher_column` gave before they were restricted.
            rows_N: bool, the rows at which it is moved; None for all.
        """
        move, columns = self.move, restricted_NV.shape[1]
        if move is None or move[1] >= columns:
            return restricted_NV
        everywhere = rows_N is None
        added = torch.logaddexp(restricted_NV[:, move[1]], theirs_N)
        if not everywhere:
            added = torch.where(rows_N, added, restricted_NV[:, move[1]])
        if move[0] < columns:
            kept = restricted_NV[:, move[0]]
            restricted_NV[:, move[0]] = -torch.inf if everywhere else kept.masked_fill(rows_N, -torch.inf)
        restricted_NV[:, move[1]] = added
        return restricted_NV


class CommonTokens:
    """One tokenizer: the teacher's distribution at every target, over the ids that mean the same to both.

    Args:
        teacher: hidden states and head.
        common: [C] bool, the ids that mean the same to both.
        ends: where the two have other start or end tokens. Then rows without a counterpart have no target, and the
            teacher's probability of its end token counts for the student's (where special tokens are parsed, at the end
            of a text only).

    Attributes:
        mass: stays empty: nothing is mapped.
    """

    def __init__(self, teacher: Teacher, common: Tensor, ends: OwnEnds | None = None) -> None:
        self.teacher = teacher
        self.common = common
        self.ends = ends
        self.mass = MappedMass()

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The rows of both sides that belong together; nothing where the two read the very same."""
        if self.ends is None:
            return {}
        width, teacher_width = batch["labels"].shape[1], batch["teacher_input_ids"].shape[1]
        lengths = torch.tensor(batch["host"].teacher_lengths)
        texts, rows = batch["target_rows"] // width, batch["target_rows"] % width + self.ends.start_shift
        places = ((rows >= 0) & (rows < lengths[texts] - 1)).nonzero()[:, 0]
        teacher_rows = texts[places] * teacher_width + rows[places]
        prepared = {"rows": places, "teacher_rows": teacher_rows}
        if self.ends.parse and self.ends.move is not None:
            following = torch.from_numpy(next_ids(batch["teacher_input_ids"]))[teacher_rows]
            theirs, ours = self.ends.move
            prepared["ending"] = (following == theirs) & (batch["target_ids"][places] == ours)
        return prepared

    def soft_targets(self, batch: Mapping[str, Any]) -> SoftTargets:
        rows = batch["target_rows"]
        if self.ends is None:
            hidden = self.teacher.hidden(batch).index_select(0, rows)
            return _CommonColumns(torch.arange(len(rows), device=rows.device), hidden, self.teacher, self.common)
        prepared = batch["prepared"]
        hidden = self.teacher.hidden(batch).index_select(0, prepared["teacher_rows"])
        return _CommonColumns(prepared["rows"], hidden, self.teacher, self.common, self.ends, prepared.get("ending"))


@dataclass(frozen=True)
class _CommonColumns:
    rows: Tensor
    hidden_RD: Tensor
    teacher: Teacher
    common: Tensor
    ends: OwnEnds | None = None
    ending: Tensor | None = None

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        # The teacher's padded columns, and tokens that the student lacks, carry no probability.
        logits = self.teacher.head(self.hidden_RD[begin:end])
        theirs = None if self.ends is None else self.ends.teacher_column(logits)
        if logits.shape[1] < columns:
            restricted = restrict_columns(logits, self.common, columns)
        else:
            # Mostly a few special tokens: writing on these alone saves two copies of everything.
            common = functional.pad(self.common[:columns], (0, max(0, columns - len(self.common))), value=False)
            foreign = (~common).nonzero()[:, 0].to(logits.device)
            restricted = logits[:, :columns].index_fill_(1, foreign, -torch.inf)
        if self.ends is None or theirs is None:
            return restricted
        return self.ends.moved(restricted, theirs, None if self.ending is None else self.ending[begin:end])


def common_tokens(teacher: Teacher, encoders: TextEncoders) -> CommonTokens:
    """The plain distributions over the ids that mean the same to both.

    Raises:
        ValueError: a tokenizer's bytes are not known.
    """
    return CommonTokens(teacher, torch.from_numpy(common_ids(*token_tables(encoders))), OwnEnds.of(encoders))
