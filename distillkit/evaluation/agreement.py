"""How closely a student follows the teacher: the same first choice, and KL(teacher ‖ student), row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distillkit.device.number_formats import widen
from distillkit.device.row_tiles import row_tiles
from distillkit.errors import DistillkitError
from distillkit.evaluation.batched_forward import rows_at_once
from distillkit.losses.divergences import forward_kl

LogTarget = Callable[[Tensor, int], Tensor]
"""(teacher logits [N, U], V) -> [N, V] log-probabilities over the student's V columns, -inf where the teacher gives no
probability; a row that is -inf throughout has no target and is left out. For the same tokenizer: `restrict_columns` and
`temper`; across tokenizers: `BytePrefixMap.project`."""


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
class AgreementSums:
    """What is added up of one student, batch by batch."""

    same: int = 0
    kl: float = 0.0
    rows: int = 0

    def add(
        self,
        teacher_BTU: Tensor,
        teacher_rows_R: Tensor,
        student_BTV: Tensor,
        student_rows_R: Tensor,
        log_target: LogTarget,
    ) -> None:
        """Add the pairs of a batch.

        Args:
            teacher_rows_R, student_rows_R: as `flat_rows` gives them; pairs.
            log_target: the teacher's distributions over the student's columns; the student's softmax is over all of them.
        """
        columns = student_BTV.shape[-1]
        # Held for each row: the teacher's logits, their softmax, the target, and two or three temporaries.
        chunk = rows_at_once(teacher_BTU.shape[-1] + columns)
        teacher_NU, student_NV = teacher_BTU.flatten(0, 1), student_BTV.flatten(0, 1)
        for teacher_rows, student_rows in zip(teacher_rows_R.split(chunk), student_rows_R.split(chunk), strict=True):
            target = log_target(teacher_NU.index_select(0, teacher_rows), columns)
            self.add_rows(target, student_NV.index_select(0, student_rows))

    def add_rows(self, target_NV: Tensor, student_NV: Tensor) -> None:
        """Add some rows.

        Args:
            target_NV: log-probabilities; a row that is -inf throughout has no target and is left out.
            student_NV: logits.
        """
        for tile in row_tiles(len(target_NV), target_NV.shape[1], target_NV.device):
            has_target = target_NV[tile].amax(-1) != -math.inf  # NaN counts as one, so that it is noticed.
            target, student = target_NV[tile][has_target], widen(student_NV[tile]).log_softmax(-1)[has_target]
            # Not `argmax`, which takes three times as long (torch 2.13, CPU).
            self.same += int((target.max(-1).indices == student.max(-1).indices).sum())
            self.kl += float(forward_kl(target, student).cpu().double().sum())
            self.rows += len(target)

    def check(self, name: str) -> None:
        """Raise DistillkitError where the divergence of the student `name` is no finite number."""
        if not math.isfinite(self.kl):
            raise DistillkitError(
                f"the divergence of the student {name!r} from the teacher became {self.kl}", hint="use --precision fp32"
            )

    def means(self) -> Agreement:
        """Over rows, not over texts or batches."""
        if not self.rows:
            return Agreement(None, None, 0)
        # Rounding can leave the divergence of equal distributions a hair below zero.
        return Agreement(self.same / self.rows, max(0.0, self.kl / self.rows), self.rows)


def flat_rows(rows: Sequence[Sequence[int]], logits_BTV: Tensor) -> Tensor:
    """[R] indices into the flattened [B·T] rows."""
    width = logits_BTV.shape[1]
    flat = [torch.as_tensor(rows_of_text, dtype=torch.long) + index * width for index, rows_of_text in enumerate(rows)]
    return torch.cat(flat).to(logits_BTV.device)
