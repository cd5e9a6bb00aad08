"""Approximate likelihood matching: whole chunks of text instead of single tokens (ALM, arXiv 2503.20083).

Between two shared boundaries both models spell the same bytes, in however many tokens. The loss compares the
probabilities of that stretch alone: two numbers per chunk, for any two vocabularies.
"""

from __future__ import annotations

import torch
from torch import Tensor

LIKELIHOOD_SOFTENING = 100.0
"""τ of the paper, which compares likelihoods as p^(1/τ). It softens one probability per chunk, not a distribution over
tokens: the temperature of a run has no part in it."""
_EPSILON = 1e-6  # Keeps a likelihood of one away from log 0.


def chunk_sums(values_N: Tensor, chunk_of_N: Tensor, chunks: int) -> Tensor:
    """[C] the sum of the values in each chunk.

    Args:
        values_N: [N] one number per token.
        chunk_of_N: [N] int64, the chunk of each token; -1 for tokens in no chunk.
        chunks: C.
    """
    inside = chunk_of_N >= 0
    return values_N.new_zeros(chunks).index_add_(0, chunk_of_N[inside], values_N[inside])


def likelihood_divergence(teacher_C: Tensor, student_C: Tensor) -> Tensor:
    """τ·KL(Bernoulli(p^(1/τ)) ‖ Bernoulli(q^(1/τ))) per chunk, [C] nats, p and q the chunk's likelihoods.

    The binary cross-entropy of the paper less its part that the student cannot change, times τ: the gradient then has
    the size of the cross-entropy's and a limit for τ → ∞.

    Args:
        teacher_C, student_C: [C] log-likelihoods in nats, at most 0.
    """
    teacher, student = (values.clamp(max=0) / LIKELIHOOD_SOFTENING - _EPSILON for values in (teacher_C, student_C))
    teacher_complement, student_complement = _log_complement(teacher), _log_complement(student)
    divergence = teacher.exp() * (teacher - student) - torch.expm1(teacher) * (teacher_complement - student_complement)
    return LIKELIHOOD_SOFTENING * divergence


def _log_complement(log_probs: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, any shape, in the form that does not cancel."""
    near_one = log_probs > -0.6931471805599453
    # Both branches get arguments that are right for them, or the unused one would spoil the gradient.
    small = torch.where(near_one, log_probs, -0.5)
    large = torch.where(near_one, -1.0, log_probs)
    return torch.where(near_one, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))
