"""What a batch is trained on: the kinds of distillation, each a callable from student logits to the loss terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from distillkit.alignment.bpm import BytePrefixMap
from distillkit.alignment.token_bytes import common_ids
from distillkit.data.reading import Readers
from distillkit.losses.objective import (
    IGNORED,
    DistillationTerms,
    cross_vocabulary_terms,
    hard_terms,
    same_vocabulary_terms,
)
from distillkit.parameters import Parameters

Logits = Callable[[Mapping[str, Tensor]], Tensor]


class Objective(Protocol):
    """Student logits [B, T, V] and a batch to the sums of the loss terms."""

    def __call__(self, student_logits: Tensor, batch: Mapping[str, Tensor]) -> DistillationTerms: ...


class HardOnly:
    """No teacher: cross-entropy with the true tokens (alpha is 0)."""

    def __call__(self, student_logits: Tensor, batch: Mapping[str, Tensor]) -> DistillationTerms:
        return hard_terms(student_logits, batch["labels"])


class SameTokenizer:
    """White box with one tokenizer: the divergence on every target.

    Args:
        teacher_logits: the teacher's forward pass.
        common: [C] bool, the ids that mean the same to both.
    """

    def __init__(self, teacher_logits: Logits, common: Tensor, temperature: float) -> None:
        self.teacher_logits = teacher_logits
        self.common = common
        self.temperature = temperature

    def __call__(self, student_logits: Tensor, batch: Mapping[str, Tensor]) -> DistillationTerms:
        return same_vocabulary_terms(
            student_logits, batch["labels"], self.teacher_logits(batch), self.common, temperature=self.temperature
        )


class BytePrefix:
    """White box across tokenizers: byte-prefix marginalisation at the aligned rows, cross-entropy everywhere.

    Attributes:
        mapped, rows: Σ of the teacher's probability that had a student token, and the rows summed over.
    """

    def __init__(self, teacher_logits: Logits, prefix_map: BytePrefixMap, temperature: float) -> None:
        self.teacher_logits = teacher_logits
        self.prefix_map = prefix_map
        self.temperature = temperature
        self.mapped = 0.0
        self.rows = 0

    def __call__(self, student_logits: Tensor, batch: Mapping[str, Tensor]) -> DistillationTerms:
        teacher_rows = self.teacher_logits(batch).flatten(0, 1).index_select(0, batch["teacher_row_index"])
        projection = self.prefix_map.project(teacher_rows, student_logits.shape[-1])
        self.mapped += float((1 - projection.residual).sum())
        self.rows += len(teacher_rows)
        return cross_vocabulary_terms(
            student_logits,
            batch["labels"],
            batch["student_row_index"],
            projection.log_target,
            temperature=self.temperature,
        )


class BlackBox:
    """Cross-entropy on the teacher's writing (soft, weighed by alpha) and on true texts (hard, weighed by beta)."""

    def __call__(self, student_logits: Tensor, batch: Mapping[str, Tensor]) -> DistillationTerms:
        teacher_text = batch["teacher_text"].bool()
        written = hard_terms(student_logits, batch["labels"].masked_fill(~teacher_text[:, None], IGNORED))
        true = hard_terms(student_logits, batch["labels"].masked_fill(teacher_text[:, None], IGNORED))
        return DistillationTerms(written.hard_sum, true.hard_sum, written.hard_rows, true.hard_rows)


def build_objective(
    config: Parameters, teacher_logits: Logits | None, readers: Readers, *, same_tokenizer: bool
) -> Objective:
    """The objective of a configuration.

    Args:
        teacher_logits: the teacher's forward pass; None where it is not needed.
        readers: how the two models read, for white box their token bytes.
    """
    if config.box_type == "black":
        return BlackBox()
    if teacher_logits is None:
        return HardOnly()
    teacher, student = readers.teacher.table, readers.student.table
    if teacher is None or student is None:
        raise ValueError("white box needs token bytes; prepare-data refuses such a pair")
    if same_tokenizer:
        common = torch.from_numpy(common_ids(teacher, student))
        return SameTokenizer(teacher_logits, common, config.temperature)
    return BytePrefix(teacher_logits, BytePrefixMap.build(teacher, student), config.temperature)


def needs_teacher(box_type: str, alpha: float) -> bool:
    """Whether a white-box run has to run the teacher at all."""
    return box_type == "white" and alpha > 0
