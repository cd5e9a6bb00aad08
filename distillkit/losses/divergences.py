"""Divergences between a teacher's and a student's distribution: pure functions on log-probabilities.

Shapes: N rows, V columns. Both arguments are log-probabilities (each row sums to one after exp). To add a divergence:
write the function and add a line to `DIVERGENCES`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Divergence = Callable[[Tensor, Tensor], Tensor]


def forward_kl(teacher_log_probs_NV: Tensor, student_log_probs_NV: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p·(log p - log q), [N] nats (Hinton et al. 2015, arXiv 1503.02531).

    Columns to which the teacher gives exactly nothing (-inf, or too little for a float) contribute exactly nothing,
    to the value and to the gradient, even where the student's log-probability is -inf too.
    """
    teacher_probs_NV = teacher_log_probs_NV.exp()
    # Filled before the product: 0 · inf is NaN, forwards and backwards.
    difference_NV = (teacher_log_probs_NV - student_log_probs_NV).masked_fill(teacher_probs_NV == 0, 0)
    return (teacher_probs_NV * difference_NV).sum(-1)


DIVERGENCES: dict[str, Divergence] = {"forward-kl": forward_kl}
