"""Teacher and students on the same texts in one pass: what each is worth, and how closely each student follows the teacher.

A text is read once by each model, however much is computed from its logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from distillkit.console import ProgressHandle
from distillkit.evaluation.agreement import Agreement, AgreementSums, LogTarget, flat_rows
from distillkit.evaluation.batched_forward import batch_logits, default_batch_tokens, eval_mode
from distillkit.evaluation.bits_per_byte import (
    ScoredText,
    Scores,
    by_document,
    check_finite,
    no_tokens,
    set_nll,
    token_nll,
)
from distillkit.evaluation.length_batches import batches_by_length
from distillkit.interrupts import check_interrupted


@dataclass(frozen=True)
class ComparedText:
    """One text as both models read it. Row r predicts token r + 1; `student_rows` and `teacher_rows` are pairs.

    Raises:
        ValueError: the rows are not pairs, or lie outside the text.
    """

    student: ScoredText
    teacher: ScoredText
    student_rows: Sequence[int]
    teacher_rows: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.student_rows) != len(self.teacher_rows):
            raise ValueError(f"{len(self.student_rows)} rows of the student, {len(self.teacher_rows)} of the teacher")
        for text, rows in ((self.student, self.student_rows), (self.teacher, self.teacher_rows)):
            if len(rows) and not 0 <= min(rows) <= max(rows) < len(text.ids):
                raise ValueError(f"rows {min(rows)} to {max(rows)} of a text of {len(text.ids)} tokens")

    @property
    def student_read(self) -> Sequence[int]:
        """What the student has to read for all of it."""
        return _read(self.student, self.student_rows)

    @property
    def teacher_read(self) -> Sequence[int]:
        """What the teacher has to read for all of it."""
        return _read(self.teacher, self.teacher_rows)


def _read(text: ScoredText, rows: Sequence[int]) -> Sequence[int]:
    # One token at least: no model reads nothing.
    return text.ids[: max(1, len(text.read), max(rows, default=-1) + 1)]


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    Attributes:
        teacher: its scores.
        students: the scores of each.
        agreement: of each student with the teacher.
    """

    teacher: Scores
    students: dict[str, Scores]
    agreement: dict[str, Agreement]


def compare(
    teacher: nn.Module,
    students: Mapping[str, nn.Module],
    texts: Iterable[ComparedText],
    *,
    log_target: LogTarget,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
    batch_tokens: int | None = None,
    progress: ProgressHandle | None = None,
) -> Comparison:
    """Score all models (as `bits_per_byte.score`) and compare every student with the teacher on the paired rows.

    Means of the agreement are over rows, not over texts or batches.

    Args:
        teacher, students: causal language models on `device`; their training modes are restored.
        log_target: the teacher's distributions over the student's columns.
        autocast_dtype: the format of the students' matrix products; the teacher computes in that of its weights.
        batch_tokens: tokens per batch and model, padding included; default: as many as have half a gigabyte of logits
            of the teacher and one student.
        progress: advanced by the number of texts.

    Raises:
        NotFiniteError: a text has no finite likelihood.
        DistillkitError: the divergence is not a finite number.
        Interrupted: a signal arrived.
    """
    texts = list(texts)
    of_teacher, of_student = [text.teacher for text in texts], [text.student for text in texts]
    teacher_nll, teacher_tokens = np.zeros(len(texts)), no_tokens(len(texts))
    nll = {name: np.zeros(len(texts)) for name in students}
    tokens = {name: no_tokens(len(texts)) for name in students}
    sums = {name: AgreementSums() for name in students}
    lengths = [max(len(text.student_read), len(text.teacher_read)) for text in texts]
    most = batch_tokens or default_batch_tokens(teacher, *list(students.values())[:1])
    with eval_mode(teacher, *students.values()):
        for numbers in batches_by_length(lengths, most):
            check_interrupted()
            members = [texts[index] for index in numbers]
            teacher_logits = batch_logits(teacher, [text.teacher_read for text in members], device, None)
            set_nll(teacher_nll, teacher_tokens, numbers, token_nll(teacher_logits, [text.teacher for text in members]))
            check_finite(teacher_nll, of_teacher, numbers)
            teacher_rows = flat_rows([text.teacher_rows for text in members], teacher_logits)
            for name, student in students.items():
                logits = batch_logits(student, [text.student_read for text in members], device, autocast_dtype)
                set_nll(nll[name], tokens[name], numbers, token_nll(logits, [text.student for text in members]))
                check_finite(nll[name], of_student, numbers)
                rows = flat_rows([text.student_rows for text in members], logits)
                sums[name].add(teacher_logits, teacher_rows, logits, rows, log_target)
                del logits  # Or it would still be held while the next student computes.
                sums[name].check(name)
            if progress is not None:
                progress.advance(len(members))
    return Comparison(
        by_document(of_teacher, teacher_nll, teacher_tokens),
        {name: by_document(of_student, of_model, tokens[name]) for name, of_model in nll.items()},
        {name: total.means() for name, total in sums.items()},
    )
