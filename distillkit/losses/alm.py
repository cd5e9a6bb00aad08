"""Approximate likelihood matching: whole chunks of text instead of single tokens (ALM, arXiv 2503.20083).

Between two shared boundaries both models spell the same bytes, in however many tokens. What is compared is the
probability of just that stretch: two numbers a chunk, whatever the vocabularies.
"""

from __future__ import annotations

import torch
from torch import Tensor

TEMPERATURE = 100.0
"""Of the likelihoods, as in the paper; it has nothing to do with the temperature of distributions."""
_EPSILON = 1e-6  # Keeps a likelihood of one away from log 0.


def chunk_sums(values_N: Tensor, chunk_of_N: Tensor, chunks: int) -> Tensor:
    """[chunks] sums of per-token values; chunk_of_N is -1 for tokens in no chunk."""
    inside = chunk_of_N >= 0
    return values_N.new_zeros(chunks).index_add_(0, chunk_of_N[inside], values_N[inside])


def likelihood_divergence(teacher_C: Tensor, student_C: Tensor) -> Tensor:
    """T·KL(Bernoulli(p^(1/T)) ‖ Bernoulli(q^(1/T))) per chunk, [C] nats, p and q the chunk's likelihoods.

    The binary cross-entropy of the paper less its part that the student cannot change, times T: the gradient then has
    the size of the cross-entropy's and a limit for T → ∞.

    Args:
        teacher_C, student_C: [C] log-likelihoods, at most 0.
    """
    teacher, student = (values.clamp(max=0) / TEMPERATURE - _EPSILON for values in (teacher_C, student_C))
    other = (_log_complement(teacher), _log_complement(student))
    divergence = teacher.exp() * (teacher - student) - torch.expm1(teacher) * (other[0] - other[1])
    return TEMPERATURE * divergence


def _log_complement(log_probs: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, in the form that does not cancel."""
    near_one = log_probs > -0.6931471805599453
    # Both branches get arguments that are right for them, or the unused one would spoil the gradient.
    small = torch.where(near_one, log_probs, -0.5)
    large = torch.where(near_one, -1.0, log_probs)
    return torch.where(near_one, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))
