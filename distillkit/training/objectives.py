"""What a batch is trained on: the kinds of distillation, each a callable from a student's output to the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from distillkit.device.number_formats import sum_format
from distillkit.losses.chunked import ChunkedLoss, RowLoss, SoftTargets, StudentOutput, chunked_loss
from distillkit.losses.divergences import Divergence
from distillkit.losses.mapped_mass import MappedMass
from distillkit.losses.sparse import SparseTargets
from distillkit.losses.tempered import SoftLoss
from distillkit.losses.uld import UniversalLogitLoss
from distillkit.run.context import TrainingContext
from distillkit.settings.conditions import anneals
from distillkit.settings.parameters import Parameters
from distillkit.teachers.protocol import TargetMaker, TeacherSource
from distillkit.training.schedules import annealed


@dataclass(frozen=True)
class Weights:
    """How the terms of a micro-batch are weighed.

    Attributes:
        alpha, beta: of the soft and the hard term.
        divisor: [] the targets of the whole optimizer step.
        training_fraction: how much of the training is behind, 0 to 1.
        compile_kernels: whether the element-wise part of the loss is compiled.
    """

    alpha: float
    beta: float
    divisor: Tensor
    training_fraction: float = 0.0
    compile_kernels: bool = False


@dataclass(frozen=True)
class Terms:
    """The loss of a micro-batch, with a graph, and its two terms as plain sums in nats, neither weighed nor divided."""

    loss: Tensor
    soft_sum: Tensor
    hard_sum: Tensor


class Objective(Protocol):
    """A student's output and a batch (`data.batching.DistillationCollator`) to the loss.

    Attributes:
        mass: how much of the teacher's probability the student has tokens for; empty where nothing is mapped.
    """

    @property
    def mass(self) -> MappedMass: ...

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What follows from the batch alone; becomes `batch["prepared"]`."""
        ...

    def __call__(self, student: StudentOutput, batch: Mapping[str, Any], weights: Weights) -> Terms: ...


def weighted_loss(
    student: StudentOutput,
    batch: Mapping[str, Any],
    hard_weight: Tensor | float,
    soft_targets: SoftTargets | SparseTargets | None,
    soft: RowLoss,
    weights: Weights,
) -> ChunkedLoss:
    """`chunked_loss` over the target rows of a batch.

    Args:
        hard_weight: of every row's cross-entropy, one for all or [N].
    """
    rows, targets = batch["target_rows"], batch["target_ids"]
    hard = torch.as_tensor(hard_weight, dtype=sum_format(student.hidden_BTD), device=rows.device).expand(rows.shape)
    return chunked_loss(
        student, rows, targets, hard, soft_targets, soft,
        alpha=weights.alpha, divisor=weights.divisor, compile_kernels=weights.compile_kernels,
    )  # fmt: skip


class HardOnly:
    """No teacher: cross-entropy with the true tokens (alpha is 0)."""

    def __init__(self) -> None:
        self.mass = MappedMass()

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def __call__(self, student: StudentOutput, batch: Mapping[str, Any], weights: Weights) -> Terms:
        computed = weighted_loss(student, batch, weights.beta, None, SoftLoss(), weights)
        return Terms(computed.loss, computed.soft_sum, computed.cross_entropy_N.sum())


class BlackBox:
    """Cross-entropy on the teacher's texts (soft, weighed by alpha) and on true texts (hard, weighed by beta)."""

    def __init__(self) -> None:
        self.mass = MappedMass()

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Which target rows are in a text of the teacher's, [N] bool."""
        return {"of_teacher": batch["teacher_text"].bool()[batch["target_rows"] // batch["labels"].shape[1]]}

    def __call__(self, student: StudentOutput, batch: Mapping[str, Any], weights: Weights) -> Terms:
        of_teacher = batch["prepared"]["of_teacher"]
        hard = torch.where(of_teacher, weights.alpha, weights.beta)
        computed = weighted_loss(student, batch, hard, None, SoftLoss(), weights)
        entropies = computed.cross_entropy_N
        return Terms(computed.loss, entropies[of_teacher].sum(), entropies[~of_teacher].sum())


def soft_loss(config: Parameters) -> SoftLoss:
    """The divergence and the temperature of a configuration, as it begins."""
    settings = {"mix": config.divergence_mix, "ab_alpha": config.ab_alpha, "ab_beta": config.ab_beta}
    return SoftLoss(config.temperature, Divergence(config.divergence, **settings), varies=anneals(vars(config)))


@dataclass(frozen=True)
class SoftSettings:
    """The soft loss of a run, at any time of the training.

    Attributes:
        loss: as it is at the beginning.
        anneals: whether its temperature falls to 1.
    """

    loss: SoftLoss | UniversalLogitLoss
    anneals: bool = False

    def temperature_at(self, training_fraction: float) -> float:
        """The temperature when this much of the training is behind."""
        begun = self.loss.temperature
        return annealed(begun, training_fraction) if self.anneals else begun

    def at(self, training_fraction: float) -> RowLoss:
        """The soft loss when this much of the training is behind."""
        loss = replace(self.loss, temperature=self.temperature_at(training_fraction))
        return replace(loss, training_fraction=training_fraction) if isinstance(loss, SoftLoss) else loss


def soft_settings(config: Parameters) -> SoftSettings:
    """The soft loss of a configuration, at any time of its training."""
    return SoftSettings(soft_loss(config), anneals(vars(config)))


class SoftObjective:
    """White box: the soft loss at the rows for which there are targets, cross-entropy at every target.

    Args:
        targets: the teacher's distributions.
        soft: the soft loss.
    """

    def __init__(self, targets: TargetMaker, soft: SoftSettings) -> None:
        self.targets = targets
        self.soft = soft

    @property
    def mass(self) -> MappedMass:
        return self.targets.mass

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return self.targets.prepare(batch)

    def __call__(self, student: StudentOutput, batch: Mapping[str, Any], weights: Weights) -> Terms:
        targets = self.targets.soft_targets(batch)
        computed = weighted_loss(
            student, batch, weights.beta, targets, self.soft.at(weights.training_fraction), weights
        )
        return Terms(computed.loss, computed.soft_sum, computed.cross_entropy_N.sum())


def training_objective(context: TrainingContext, source: TeacherSource | None) -> Objective:
    """The objective of a run.

    Args:
        source: of the teacher's targets; None in black box, and where the teacher has no part in the training.
    """
    if context.config.box_type == "black":
        return BlackBox()
    if source is None:
        return HardOnly()
    return objective_of(source.signal(context), context.config)


def objective_of(signal: Any, config: Parameters) -> Objective:
    """The objective of what a `TeacherSource` or an alignment gives: targets get the soft loss of the configuration."""
    if not isinstance(signal, TargetMaker):
        return signal
    return SoftObjective(signal, soft_settings(config))
