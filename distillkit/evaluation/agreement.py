"""How closely students follow the teacher: the same first choice, and KL(teacher ‖ student), row by row.

The teacher runs once, however many students (before, after, control) are compared with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distillkit.console import ProgressHandle
from distillkit.device.number_formats import widen
from distillkit.errors import DistillkitError
from distillkit.evaluation.batched_forward import (
    batch_logits,
    default_batch_tokens,
    eval_mode,
    rows_at_once,
)
from distillkit.evaluation.length_batches import batches_by_length
from distillkit.interrupts import check_interrupted
from distillkit.losses.divergences import forward_kl

LogTarget = Callable[[Tensor, int], Tensor]
"""(teacher logits [N, U], V) -> [N, V] log-probabilities over the student's V columns, -inf where the teacher gives no
probability; a row that is -inf throughout has no target and is left out. For the same tokenizer: `restrict_columns` and
`temper`; across tokenizers: `BytePrefixMap.project`."""


@dataclass(frozen=True)
class PairedText:
    """One text as both models read it. Row r predicts token r + 1; `student_rows` and `teacher_rows` are pairs.

    Raises:
        ValueError: the rows are not pairs, or lie outside the text.
    """

    student_ids: Sequence[int]
    teacher_ids: Sequence[int]
    student_rows: Sequence[int]
    teacher_rows: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.student_rows) != len(self.teacher_rows):
            raise ValueError(f"{len(self.student_rows)} rows of the student, {len(self.teacher_rows)} of the teacher")
        for ids, rows in ((self.student_ids, self.student_rows), (self.teacher_ids, self.teacher_rows)):
            if len(rows) and not 0 <= min(rows) <= max(rows) < len(ids):
                raise ValueError(f"rows {min(rows)} to {max(rows)} of a text of {len(ids)} tokens")


@dataclass(frozen=True)
class Agreement:
    """A student beside its teacher.

    Attributes:
        top1: share of rows on which both give the most probability to the same token; None without rows.
        kl: mean KL(teacher ‖ student) in nats per row; None without rows.
        rows: rows that have a target.
    """

    top1: float | None
    kl: float | None
    rows: int


@dataclass
class _Sums:
    same: int = 0
    kl: float = 0.0
    rows: int = 0


def agreement(
    teacher: nn.Module,
    students: Mapping[str, nn.Module],
    pairs: Iterable[PairedText],
    *,
    log_target: LogTarget,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
    batch_tokens: int | None = None,
    progress: ProgressHandle | None = None,
    interruptible: bool = True,
) -> dict[str, Agreement]:
    """Compare every student with the teacher on the paired rows.

    Means are over rows, not over texts or batches. The student's softmax is over all its columns.

    Args:
        teacher, students: causal language models on `device`; their training modes are restored.
        log_target: the teacher's distributions over the student's columns.
        autocast_dtype: the format of the students' matrix products; the teacher computes in that of its weights.
        batch_tokens: tokens per batch and model, padding included; default: as many as have half a gigabyte of logits
            of the teacher and one student.
        progress: advanced by the number of texts compared.
        interruptible: whether a signal may end it between two batches.

    Raises:
        DistillkitError: the divergence is not a finite number.
        Interrupted: a signal arrived.
    """
    pairs = [pair for pair in pairs if len(pair.student_rows)]
    sums = {name: _Sums() for name in students}
    lengths = [max(len(pair.student_ids), len(pair.teacher_ids)) for pair in pairs]
    batches = batches_by_length(lengths, batch_tokens or default_batch_tokens(teacher, *list(students.values())[:1]))
    with eval_mode(teacher, *students.values()):
        for batch in batches:
            if interruptible:
                check_interrupted()
            members = [pairs[index] for index in batch]
            teacher_logits = batch_logits(teacher, [pair.teacher_ids for pair in members], device, None)
            teacher_rows = _flat_rows([pair.teacher_rows for pair in members], teacher_logits)
            for name, student in students.items():
                logits = batch_logits(student, [pair.student_ids for pair in members], device, autocast_dtype)
                rows = _flat_rows([pair.student_rows for pair in members], logits)
                _add(sums[name], teacher_logits, teacher_rows, logits, rows, log_target)
                del logits  # Or it would still be held while the next student computes.
                if not math.isfinite(sums[name].kl):
                    raise DistillkitError(
                        f"the divergence of the student {name!r} from the teacher became {sums[name].kl}",
                        hint="use --precision fp32",
                    )
            if progress is not None:
                progress.advance(len(members))
    return {name: _means(total) for name, total in sums.items()}


def _flat_rows(rows: Sequence[Sequence[int]], logits_BTV: Tensor) -> Tensor:
    """[R] indices into the flattened [B·T] rows."""
    width = logits_BTV.shape[1]
    flat = [torch.as_tensor(rows_of_text, dtype=torch.long) + index * width for index, rows_of_text in enumerate(rows)]
    return torch.cat(flat).to(logits_BTV.device)


def _add(
    sums: _Sums,
    teacher_BTU: Tensor,
    teacher_rows_R: Tensor,
    student_BTV: Tensor,
    student_rows_R: Tensor,
    log_target: LogTarget,
) -> None:
    columns = student_BTV.shape[-1]
    # Held for each row: the teacher's logits, their softmax, the target, and two or three temporaries.
    chunk = rows_at_once(teacher_BTU.shape[-1] + columns)
    teacher_NU, student_NV = teacher_BTU.flatten(0, 1), student_BTV.flatten(0, 1)
    for teacher_rows, student_rows in zip(teacher_rows_R.split(chunk), student_rows_R.split(chunk), strict=True):
        target = log_target(teacher_NU.index_select(0, teacher_rows), columns)
        student = widen(student_NV.index_select(0, student_rows))
        has_target = target.amax(-1) != -math.inf  # NaN counts as one, so that it is noticed.
        target, student = target[has_target], student.log_softmax(-1)[has_target]
        sums.same += int((target.argmax(-1) == student.argmax(-1)).sum())
        sums.kl += float(forward_kl(target, student).cpu().double().sum())
        sums.rows += len(target)


def _means(sums: _Sums) -> Agreement:
    if not sums.rows:
        return Agreement(None, None, 0)
    # Rounding can leave the divergence of equal distributions a hair below zero.
    return Agreement(sums.same / sums.rows, max(0.0, sums.kl / sums.rows), sums.rows)
