"""Watches the numbers of a training: what is none ends it, and what gets worse is said, each with what helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from distillkit.console import ProgressHandle
from distillkit.errors import DistillkitError, NotFiniteError
from distillkit.teachers.protocol import TeacherSource
from distillkit.training.early_stopping import SCORE

# So many steps skipped one after the other divide fp16's factor by a trillion: it is not the factor.
_MOST_SKIPPED = 40
# Of the held-out score at the start.
_DIVERGING = 1.1


class NumberWatch:
    """Refuses losses, gradients and weights that are no numbers.

    Args:
        role: of the model, for messages.
        remedy: what helps where the learning rate turns out too high.
        teacher: the source of the teacher's targets; None where there is none.
        display: where a warning goes.
        learning_rate: the one of now.
    """

    def __init__(
        self,
        role: str,
        remedy: str,
        teacher: TeacherSource | None,
        display: ProgressHandle,
        learning_rate: Callable[[], float],
    ) -> None:
        self.role, self.remedy, self.teacher = role, remedy, teacher
        self.display, self.learning_rate = display, learning_rate
        self._skipped, self._warned = 0, False
        self._example_ids: list[int] = []

    def check_loss(self, value: float, inputs: Mapping[str, Any], step: int) -> None:
        """Look at the loss of a micro-batch.

        Args:
            step: how many steps have been made.

        Raises:
            DistillkitError: it is not finite.
        """
        self._example_ids = inputs["host"].example_ids
        if not math.isfinite(value):
            raise self._not_finite("loss", value, step, inputs)

    def check_gradient(self, norm: float | None, step: int, *, scaled: bool) -> None:
        """Look at the norm of a step's gradient, where it is known.

        Args:
            step: how many steps have been made.
            scaled: fp16's scaler meets infinite gradients on purpose, skips the step and halves its factor: for a while.

        Raises:
            DistillkitError: it is not finite, and the scaler is not the reason.
        """
        finite = norm is None or math.isfinite(norm)
        self._skipped = 0 if finite else self._skipped + 1
        if norm is not None and not finite and (not scaled or self._skipped > _MOST_SKIPPED):
            raise self._not_finite("gradient norm", norm, step)

    def check_weights(self, trained: Iterable[torch.Tensor], step: int) -> None:
        """Look at the weights before they are committed: a step may overflow though its loss and its gradient were numbers;
        nothing could be resumed from that.

        Raises:
            DistillkitError: some are not finite.
        """
        if not all(bool(torch.isfinite(weights).all()) for weights in trained):
            raise DistillkitError(
                f"the {self.role}'s weights are not numbers any more after step {step} (learning rate "
                f"{self.learning_rate():.3g}, training examples {self._examples()})",
                hint=f"{self.remedy}; the last checkpoint is untouched",
            )

    def unscored(self, error: DistillkitError, step: int) -> DistillkitError:
        """The error of a held-out score, with where the training was."""
        where = f"after step {step} (learning rate {self.learning_rate():.3g})"
        return DistillkitError(f"{where}: {error.message}", hint=error.hint, exit_code=error.exit_code)

    def compare_score(self, value: float, history: Sequence[Mapping[str, Any]], step: int) -> None:
        """Say once that the student gets worse than it was; a score that is no number stops the training anyway.

        Args:
            history: `TrainerState.log_history`, before this score.
        """
        earlier = [line[SCORE] for line in history if SCORE in line]
        if earlier and value > _DIVERGING * earlier[0] and not self._warned:
            self._warned = True
            self.display.warn(
                f"the {self.role} gets worse: {value:.4g} bits per byte after step {step}, {earlier[0]:.4g} at the "
                f"start (learning rate {self.learning_rate():.3g}); {self.remedy}"
            )

    def _not_finite(
        self, what: str, value: float, step: int, inputs: Mapping[str, Any] | None = None
    ) -> DistillkitError:
        kind: type[DistillkitError] = NotFiniteError
        hint = f"{self.remedy}, or use --precision fp32; the last checkpoint is untouched"
        if self.teacher is not None and inputs is not None and not self.teacher.gives_numbers(inputs):
            # No setting of the student's training would help.
            kind = DistillkitError
            hint = "it is the teacher that gives no numbers: use --precision fp32, or get its files again"
        return kind(
            f"the {what} became {value} at step {step + 1} "
            f"(learning rate {self.learning_rate():.3g}, training examples {self._examples()})",
            hint=hint,
        )

    def _examples(self) -> str:
        """Those of the last micro-batch."""
        return ", ".join(map(str, self._example_ids))
