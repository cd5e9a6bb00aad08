"""The soft term of a row: the divergence between the tempered distributions of teacher and student."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillkit.device.number_formats import widen
from distillkit.losses.divergences import Divergence, forward_kl


@dataclass(frozen=True)
class SoftLoss:
    """τ²·D(p_τ ‖ q_τ) (Hinton et al. 2015, arXiv 1503.02531).

    Attributes:
        temperature: τ, of both distributions.
        divergence: D.
        training_fraction: how much of the training is behind, 0 to 1, for divergences that change with it.
        varies: τ is another one at other steps. Then τ = 1 is computed as any other τ, by the same compiled kernel.
    """

    temperature: float = 1.0
    divergence: Divergence = field(default_factory=lambda: Divergence("forward-kl"))
    training_fraction: float = 1.0
    varies: bool = False

    @property
    def tempered(self) -> bool:
        """Whether logits are divided by τ; where not, one softmax of the student serves both terms."""
        return self.varies or self.temperature != 1

    @property
    def is_forward_kl(self) -> bool:
        """Whether the gradient is the closed form of `losses.kernels`."""
        return self.divergence.function is forward_kl

    def rows(self, log_target_RV: Tensor, student_logits_RV: Tensor) -> Tensor:
        """[R] nats.

        Args:
            log_target_RV: [R, V] log-weights of the teacher at temperature 1; what is -inf stays impossible.
            student_logits_RV: [R, V].
        """
        teacher, student = temper(log_target_RV, self.temperature), temper(student_logits_RV, self.temperature)
        return self.temperature**2 * self.divergence(teacher, student, training_fraction=self.training_fraction)


def temper(log_weights_NV: Tensor, temperature: float) -> Tensor:
    """log softmax(x / τ), [N, V] nats, in fp32 or better. What is -inf stays -inf.

    Args:
        log_weights_NV: [N, V] logits or log-probabilities, which give the same.
        temperature: τ.
    """
    values = widen(log_weights_NV)
    return torch.log_softmax(values / temperature if temperature != 1 else values, dim=-1)
