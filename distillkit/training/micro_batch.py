"""The two terms of a micro-batch's loss: alone, or as one of several processes inside DDP's forward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from distillkit.losses.chunked import StudentOutput
from distillkit.losses.linear_head import LinearHead
from distillkit.models.backbone_and_head import split_model, unsplit_model
from distillkit.processes.group import Group
from distillkit.teachers.protocol import TeacherSource
from distillkit.training.objectives import Objective, Weights
from distillkit.training.several import INSIDE, run_inside_forward
from distillkit.training.tied_embedding import add_rows_in_place

LossTerms = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""The loss, to go backward from, and its soft and hard term as sums over the targets."""


class MicroBatchLoss:
    """Puts micro-batches through a student, and what comes out through an objective.

    Args:
        model: the student, not wrapped; its forward pass and its embedding are made ready for this, in place.
        objective: computes the terms.
        teacher: the source of the teacher's targets; None where there is none.
        group: the processes that train together.
        autocast: gives the context in which the student computes.

    Attributes:
        parts: the student taken apart. To be had here alone: for mixed precision accelerate changes its forward pass later.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        teacher: TeacherSource | None,
        group: Group,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.model, self.objective, self.teacher = model, objective, teacher
        self.group, self.autocast = group, autocast
        self.parts = split_model(model)
        plain: Any = self.parts.head
        # DistributedDataParallel sees the gradients that autograd hands to the parameters, and no others.
        self._linear = (
            LinearHead(plain, directly=group.alone) if self.parts.apart and LinearHead.is_plain(plain) else None
        )
        if self._linear is not None and group.alone:
            add_rows_in_place(model, plain)
        if not group.alone:
            run_inside_forward(model)

    def __call__(self, model: nn.Module, inputs: dict[str, Any], weights: Weights) -> LossTerms:
        """The loss of a micro-batch, and its two terms.

        Args:
            model: the student as it is wrapped for the training.
            inputs: a batch of the collator.
        """
        if self.group.alone:
            return self._terms(model, inputs, weights)
        # DDP averages gradients over processes, whereas the sum has already been divided by the global count.
        return model(**{INSIDE: functools.partial(self._share, inputs, weights)})

    def _terms(self, model: nn.Module, inputs: dict[str, Any], weights: Weights) -> LossTerms:
        parts = self.parts if self.parts.apart else unsplit_model(model)
        with self.autocast():
            hidden = parts.hidden(inputs)
            student = StudentOutput(hidden, parts.head, parts.parameters, parts.columns, self._linear)
            terms = self.objective(student, inputs, weights)
        return terms.loss, terms.soft_sum, terms.hard_sum

    def _share(self, inputs: dict[str, Any], weights: Weights) -> LossTerms:
        """`_terms` of one process of several, inside the forward pass of DDP; a spare batch adds nothing."""
        mass, teacher = self.objective.mass, self.teacher
        if inputs["host"].targets:
            loss, soft_sum, hard_sum = self._terms(self.model, inputs, weights)
            return loss * self.group.size, soft_sum, hard_sum
        mapped, rows, read = mass.mapped, mass.rows, (0, 0.0) if teacher is None else teacher.totals()
        terms = self._terms(self.model, inputs, weights)
        mass.restore(mapped, rows)
        if teacher is not None:
            teacher.restore_totals(*read)
        loss, soft_sum, hard_sum = (term * 0 for term in terms)
        return loss, soft_sum, hard_sum
