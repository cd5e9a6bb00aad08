"""How closely students follow the mixture of several teachers: KL(mixture ‖ student) and the same first choice, row by row.

The mixture is that of the training (`losses.mixture`), at temperature 1: the weighted mean of the probabilities of the teachers that
say something at a row of the student. A row counts where a teacher alone would be compared with the student there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distillkit.console import ProgressHandle
from distillkit.evaluation.agreement import Agreement, AgreementSums, LogTarget, flat_rows
from distillkit.evaluation.batched_forward import batch_logits, default_batch_tokens, eval_mode, rows_at_once
from distillkit.evaluation.comparison import ComparedText
from distillkit.evaluation.length_batches import batches_by_length
from distillkit.interrupts import check_interrupted
from distillkit.losses.mixture import MixedTargets, Part
from distillkit.losses.tempered import temper


@dataclass(frozen=True)
class MixedTeacher:
    """One of several teachers beside the students.

    Attributes:
        model: on the device that computes.
        weight: only the ratio to the others counts.
        texts: each text as it and the students read it; None where it does not read it.
        log_target: its distributions over the student's columns.
    """

    model: nn.Module
    weight: float
    texts: Sequence[ComparedText | None]
    log_target: LogTarget


def mixed_agreement(
    teachers: Sequence[MixedTeacher],
    students: Mapping[str, nn.Module],
    *,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
    batch_tokens: int | None = None,
    progress: ProgressHandle | None = None,
) -> dict[str, Agreement]:
    """Compare every student with the mixture; means are over rows.

    Args:
        teachers: of the same texts, one by one.
        students: causal language models on `device`, all of which read the same tokens; their training modes are restored.
        autocast_dtype: the format of the students' matrix products; a teacher computes in that of its weights.
        batch_tokens: tokens per batch and model, padding included; default: as `comparison.compare`.
        progress: advanced by the number of texts.

    Raises:
        DistillkitError: a divergence is not a finite number.
        Interrupted: a signal arrived.
    """
    models = [teacher.model for teacher in teachers]
    sums = {name: AgreementSums() for name in students}
    there = [
        [text for text in of_all if text is not None and len(text.student_rows)]
        for of_all in zip(*(one.texts for one in teachers), strict=True)
    ]
    # What a student has to read for all of them; the teachers' rows may end at different places.
    read = [max((text.student_read for text in of_all), key=len, default=()) for of_all in there]
    lengths = [
        max([len(ids), *(len(text.teacher_read) for text in of_all)]) for ids, of_all in zip(read, there, strict=True)
    ]
    scored = [index for index, ids in enumerate(read) if len(ids)]
    most = batch_tokens or default_batch_tokens(*models, *list(students.values())[:1])
    with eval_mode(*models, *students.values()):
        for batch in batches_by_length([lengths[index] for index in scored], most):
            check_interrupted()
            numbers = [scored[index] for index in batch]
            width = max(len(read[index]) for index in numbers)
            parts = [part for one in teachers if (part := _part(one, numbers, width, device)) is not None]
            mixture = MixedTargets(parts, temperature=1.0)
            for name, student in students.items():
                logits = batch_logits(student, [read[index] for index in numbers], device, autocast_dtype)
                _add(sums[name], mixture, logits.flatten(0, 1))
                del logits  # Or it would still be held while the next student computes.
                sums[name].check(name)
            if progress is not None:
                progress.advance(len(numbers))
    return {name: total.means() for name, total in sums.items()}


@dataclass(frozen=True)
class _Targets:
    """One teacher's part in a batch, as `losses.chunked.SoftTargets`.

    Attributes:
        rows: [R] of the students' flattened logits.
        logits_RU: its logits at the same places.
    """

    rows: Tensor
    logits_RU: Tensor
    project: LogTarget

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        return self.project(self.logits_RU[begin:end], columns)


def _part(teacher: MixedTeacher, numbers: Sequence[int], width: int, device: torch.device) -> Part | None:
    """What a teacher says of a batch; None where it says nothing.

    Args:
        width: of the students' batch.
    """
    placed = [(place, text) for place, index in enumerate(numbers) if (text := teacher.texts[index]) is not None]
    placed = [(place, text) for place, text in placed if len(text.student_rows)]
    if not placed:
        return None
    logits = batch_logits(teacher.model, [text.teacher_read for _, text in placed], device, None)
    logits_RU = logits.flatten(0, 1).index_select(0, flat_rows([text.teacher_rows for _, text in placed], logits))
    rows = [torch.as_tensor(text.student_rows, dtype=torch.long) + place * width for place, text in placed]
    return _Targets(torch.cat(rows).to(device), logits_RU, teacher.log_target), teacher.weight


def _add(sums: AgreementSums, mixture: MixedTargets, logits_NV: Tensor) -> None:
    columns = logits_NV.shape[-1]
    chunk = rows_at_once(2 * columns)
    for begin in range(0, len(mixture.rows), chunk):
        end = min(begin + chunk, len(mixture.rows))
        weights = mixture.log_target(begin, end, columns)
        # They add up to the weights of the teachers that say something there.
        said = weights.amax(-1, keepdim=True) != -torch.inf
        target = torch.where(said, temper(weights, 1.0), -torch.inf)
        sums.add_rows(target, logits_NV.index_select(0, mixture.rows[begin:end]))
