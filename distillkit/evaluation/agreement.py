"""How much a student agrees with its teacher: the same first choice, and the divergence of their distributions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distillkit.interrupts import check_interrupted
from distillkit.losses.divergences import forward_kl
from distillkit.training.precision import autocasting

_ROWS_AT_ONCE = 256

# [N, V_t] teacher logits and the student's number of columns -> [N, V_s] log-probabilities in the student's tokens.
LogTarget = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class PairedText:
    """One text as both models read it, and the rows that speak of the same next bytes (row r predicts token r + 1)."""

    student_ids: Sequence[int]
    teacher_ids: Sequence[int]
    student_rows: Sequence[int]
    teacher_rows: Sequence[int]


@dataclass(frozen=True)
class Agreement:
    """Over all paired rows.

    Attributes:
        top1: share of rows on which the most probable token is the same.
        kl: mean KL(teacher ‖ student) in nats per row.
        rows: how many rows were compared.
    """

    top1: float
    kl: float
    rows: int


@torch.inference_mode()
def agreement(
    teacher: nn.Module,
    students: Mapping[str, nn.Module],
    texts: Sequence[PairedText],
    *,
    log_target: LogTarget,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
) -> dict[str, Agreement]:
    """Compare each student with the teacher, which runs once. Models are in evaluation mode and on `device`.

    Rows without any target (the teacher's whole mass has no token of the student) are left out.

    Raises:
        Interrupted: a signal arrived.
    """
    same = dict.fromkeys(students, 0)
    divergence = dict.fromkeys(students, 0.0)
    rows = 0
    for text in texts:
        check_interrupted()
        teacher_logits = _logits(teacher, text.teacher_ids, text.teacher_rows, device, None)
        student_logits = {
            name: _logits(student, text.student_ids, text.student_rows, device, autocast_dtype)
            for name, student in students.items()
        }
        for start in range(0, len(text.student_rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            for position, (name, logits) in enumerate(student_logits.items()):
                target = log_target(teacher_logits[part].float(), logits.shape[-1])
                possible = target.amax(-1) > -torch.inf
                target, log_probabilities = target[possible], torch.log_softmax(logits[part].float(), -1)[possible]
                same[name] += int((target.argmax(-1) == log_probabilities.argmax(-1)).sum())
                divergence[name] += float(forward_kl(target, log_probabilities).sum(dtype=torch.float64))
                rows += len(target) if position == 0 else 0
    if not rows:
        return {}
    return {name: Agreement(same[name] / rows, divergence[name] / rows, rows) for name in students}


def _logits(
    model: nn.Module, ids: Sequence[int], rows: Sequence[int], device: torch.device, autocast_dtype: torch.dtype | None
) -> Tensor:
    """[len(rows), V] logits of one text at some rows."""
    with autocasting(device, autocast_dtype):
        logits = model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False).logits[0]
    return logits.index_select(0, torch.as_tensor(list(rows), dtype=torch.long, device=device))
