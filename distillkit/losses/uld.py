"""Universal logit distillation: two distributions compared by their sorted probabilities (ULD, arXiv 2402.12030).

Which token has which probability does not count, so the two may be over different vocabularies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class UniversalLogitLoss:
    """Σ |sort(p) - sort(q)| per row: the Wasserstein distance if all tokens are equally far from one another.

    Attributes:
        temperature: of both distributions. There is no factor τ²: the paper has none.
    """

    temperature: float = 1.0

    def rows(self, teacher_logits_RU: Tensor, student_logits_RV: Tensor) -> Tensor:
        """[R] between 0 and 2, without a unit; the shorter distribution is filled up with zeros.

        Args:
            teacher_logits_RU: [R, U].
            student_logits_RV: [R, V].
        """
        teacher, student = (
            torch.softmax(logits / self.temperature, -1).sort(-1, descending=True).values
            for logits in (teacher_logits_RU, student_logits_RV)
        )
        width = max(teacher.shape[-1], student.shape[-1])
        padded = [functional.pad(values, (0, width - values.shape[-1])) for values in (teacher, student)]
        return (padded[0] - padded[1]).abs().sum(-1)
