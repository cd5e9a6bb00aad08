"""The score by which a training chooses its best checkpoint: bits per byte of the validation part."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from distillkit.device.malloc import trim_heap
from distillkit.device.precision import Compute
from distillkit.errors import DistillkitError
from distillkit.evaluation.bits_per_byte import ScoredText, score
from distillkit.models.backbone_and_head import SplitModel
from distillkit.processes.group import ALONE, Group


class HeldOutScore:
    """Bits per byte of texts under the model of a training. Not interruptible: a step that is scored is also saved.

    Args:
        texts: of the validation part.
        compute: where and in which formats the model computes.
        name: of the score, for messages.
        remedy: what helps where there is none.
        group: processes that score together; all of them call it.
        divided: whether the model is divided over them.
        first: the score that the first call would find, where it is known already: nothing is computed for it.
    """

    def __init__(
        self,
        texts: Sequence[ScoredText],
        compute: Compute,
        *,
        name: str = "held-out score",
        remedy: str = "lower --learning-rate",
        group: Group = ALONE,
        divided: bool = False,
        first: float | None = None,
    ) -> None:
        self.texts, self.compute = texts, compute
        self._first = first
        self.name, self.remedy = name, remedy
        self.group, self.divided = group, divided

    def __call__(self, model: nn.Module, parts: SplitModel) -> float:
        """The score of the model as it is now.

        Args:
            parts: the same taken apart: beside a training there is no room for the logits of whole batches. Not used of a divided
                one, whose parts are whole only inside its own forward pass.

        Raises:
            DistillkitError: it is not finite.
        """
        if self._first is not None:
            value, self._first = self._first, None
            return value
        # Steps leave free memory between what is in use: texts are scored, and the student is then written, without it.
        trim_heap()
        value = score(
            model, self.texts, device=self.compute.device, autocast_dtype=self.compute.autocast, interruptible=False,
            group=self.group, divided=self.divided, parts=None if self.divided else parts,
        ).bits_per_byte  # fmt: skip
        if not math.isfinite(value):
            raise DistillkitError(f"the {self.name} became {value}", hint=self.remedy)
        return value
