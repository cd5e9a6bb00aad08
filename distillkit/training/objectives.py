"""What a batch is trained on: the kinds of distillation, each a callable from a student's output to the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from distillkit.alignment.token_bytes import common_ids
from distillkit.data.text_encoder import TextEncoders
from distillkit.device.number_formats import sum_format
from distillkit.losses.chunked import ChunkedLoss, RowLoss, SoftTargets, StudentOutput, chunked_loss
from distillkit.losses.divergences import Divergence
from distillkit.losses.sparse import SparseTargets
from distillkit.losses.target_rows import restrict_columns, target_rows
from distillkit.losses.tempered import SoftLoss
from distillkit.settings.parameters import Parameters
from distillkit.teachers.protocol import Teacher
from distillkit.teachers.sparse_cache import SparseCache, SparseRows


@dataclass(frozen=True)
class Weights:
    """How the terms of a micro-batch are weighed.

    Attributes:
        alpha, beta: of the soft and the hard term.
        divisor: [] the targets of the whole optimizer step.
        done: how much of the training is behind, 0 to 1.
        compile_kernels: whether the element-wise part of the loss is compiled.
    """

    alpha: float
    beta: float
    divisor: Tensor
    done: float = 0.0
    compile_kernels: bool = False


@dataclass(frozen=True)
class Terms:
    """The loss of a micro-batch, with a graph, and its two terms as plain sums in nats, neither weighed nor divided."""

    loss: Tensor
    soft_sum: Tensor
    hard_sum: Tensor
    soft_rows: int


class Objective(Protocol):
    """A student's output and a batch to the loss."""

    def __call__(self, student: StudentOutput, batch: Mapping[str, Tensor], weights: Weights) -> Terms: ...


def weighted_loss(
    student: StudentOutput,
    targets: tuple[Tensor, Tensor],
    hard_weight: Tensor | float,
    soft_targets: SoftTargets | SparseTargets | None,
    soft: RowLoss,
    weights: Weights,
) -> ChunkedLoss:
    """`chunked_loss` over (rows, labels), every row's cross-entropy weighed by `hard_weight`."""
    rows, labels = targets
    hard = torch.as_tensor(hard_weight, dtype=sum_format(student.hidden_BTD), device=rows.device).expand(rows.shape)
    return chunked_loss(
        student, rows, labels, hard, soft_targets, soft,
        alpha=weights.alpha, divisor=weights.divisor, compile_kernels=weights.compile_kernels,
    )  # fmt: skip


class HardOnly:
    """No teacher: cross-entropy with the true tokens (alpha is 0)."""

    def __call__(self, student: StudentOutput, batch: Mapping[str, Tensor], weights: Weights) -> Terms:
        found = weighted_loss(student, target_rows(batch["labels"]), weights.beta, None, SoftLoss(), weights)
        return Terms(found.loss, found.soft_sum, found.cross_entropy_N.sum(), 0)


class BlackBox:
    """Cross-entropy on the teacher's writing (soft, weighed by alpha) and on true texts (hard, weighed by beta)."""

    def __call__(self, student: StudentOutput, batch: Mapping[str, Tensor], weights: Weights) -> Terms:
        rows, labels = target_rows(batch["labels"])
        written = batch["teacher_text"].bool()[rows // batch["labels"].shape[1]]
        hard = torch.where(written, weights.alpha, weights.beta)
        found = weighted_loss(student, (rows, labels), hard, None, SoftLoss(), weights)
        entropies = found.cross_entropy_N
        return Terms(found.loss, entropies[written].sum(), entropies[~written].sum(), int(written.sum()))


@dataclass(frozen=True)
class SoftSettings:
    """The soft loss of a run, at any time of the training."""

    loss: SoftLoss

    @classmethod
    def of(cls, config: Parameters) -> SoftSettings:
        divergence = Divergence(
            config.divergence, mix=config.divergence_mix, ab_alpha=config.ab_alpha, ab_beta=config.ab_beta
        )
        return cls(SoftLoss(config.temperature, divergence))

    def at(self, done: float) -> SoftLoss:
        """The soft loss when `done` of the training is behind."""
        return replace(self.loss, training_fraction=done)


class SameTokenizer:
    """White box with one tokenizer: the divergence on every target.

    Args:
        teacher: the teacher's hidden states and head.
        common: [C] bool, the ids that mean the same to both.
    """

    def __init__(self, teacher: Teacher, common: Tensor, soft: SoftSettings) -> None:
        self.teacher = teacher
        self.common = common
        self.soft = soft

    def __call__(self, student: StudentOutput, batch: Mapping[str, Tensor], weights: Weights) -> Terms:
        targets = self.soft_targets(batch)
        rows_labels = target_rows(batch["labels"])
        found = weighted_loss(student, rows_labels, weights.beta, targets, self.soft.at(weights.done), weights)
        return Terms(found.loss, found.soft_sum, found.cross_entropy_N.sum(), found.soft_rows)

    def soft_targets(self, batch: Mapping[str, Tensor]) -> SoftTargets:
        """The teacher's distributions at all targets of a batch."""
        rows, _ = target_rows(batch["labels"])
        hidden = self.teacher.hidden(batch).index_select(0, rows)
        return _CommonColumns(torch.arange(len(rows), device=rows.device), hidden, self.teacher, self.common)


@dataclass(frozen=True)
class _CommonColumns:
    rows: Tensor
    hidden_RD: Tensor
    teacher: Teacher
    common: Tensor

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        # The teacher's padded columns, and tokens that the student lacks, carry no probability.
        logits = self.teacher.head(self.hidden_RD[begin:end])
        if logits.shape[1] < columns:
            return restrict_columns(logits, self.common, columns)
        # Mostly a few special tokens: writing on these alone saves two copies of everything.
        common = functional.pad(self.common[:columns], (0, max(0, columns - len(self.common))), value=False)
        foreign = (~common).nonzero()[:, 0].to(logits.device)
        return logits[:, :columns].index_fill_(1, foreign, -torch.inf)


def same_tokenizer_objective(config: Parameters, teacher: Teacher, encoders: TextEncoders) -> SameTokenizer:
    """Plain divergence over the ids that mean the same to both.

    Raises:
        ValueError: a tokenizer's bytes are not known; prepare-data refuses such a pair.
    """
    if encoders.teacher.table is None or encoders.student.table is None:
        raise ValueError("white box needs token bytes")
    common = torch.from_numpy(common_ids(encoders.teacher.table, encoders.student.table))
    return SameTokenizer(teacher, common, SoftSettings.of(config))


def needs_teacher(box_type: str, alpha: float) -> bool:
    """Whether a white-box run has to run the teacher at all."""
    return box_type == "white" and alpha > 0


class SparseObjective:
    """White box from the sparse cache: the forward KL at the rows that are stored, cross-entropy everywhere.

    Args:
        cache: complete and open.
    """

    def __init__(self, cache: SparseCache, soft: SoftLoss) -> None:
        self.cache = cache
        self.soft = soft

    def __call__(self, student: StudentOutput, batch: Mapping[str, Tensor], weights: Weights) -> Terms:
        rows, labels = target_rows(batch["labels"])
        width, device = batch["labels"].shape[1], rows.device
        parts = [self.cache.read(text) for text in batch["cache_index"].tolist()]
        places = np.concatenate([part.rows + position * width for position, part in enumerate(parts)])
        whole = SparseRows.joined(parts)
        ids, probabilities = whole.padded()
        targets = SparseTargets(
            torch.searchsorted(rows, torch.from_numpy(places).to(device)),
            ids.to(device),
            probabilities.to(device),
            torch.from_numpy(whole.tails).to(device),
        )
        found = weighted_loss(student, (rows, labels), weights.beta, targets, self.soft, weights)
        return Terms(found.loss, found.soft_sum, found.cross_entropy_N.sum(), found.soft_rows)
