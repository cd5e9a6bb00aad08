"""Sparse teacher targets: a few of the student's ids for each row, instead of a number for every id.

Two kinds, both made after marginalisation and tempering, so that their ids are the student's:

- a systematic sample: n draws from p, target c_i / n (Random Sampling KD, arXiv 2503.16870, with Madow's systematic
  sampling, 1949, in place of independent draws: the same expectation p, less variance). The gradient of the forward KL
  is linear in the target and so stays unbiased; the value of the KL does not.
- the k likeliest ids and the mass of all others, which the student may spread as it likes (the tail bucket).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-7  # The least mass that a student's tail is taken to have, in fp32.


@dataclass(frozen=True)
class SparseTargets:
    """The teacher's say about some of the target rows, at the temperature of the run.

    Attributes:
        rows: [R] int64, ascending, unique: positions among the N target rows.
        ids_RK: [R, K] int64 student ids; distinct in a row, save that id 0 with probability 0 fills it up.
        probabilities_RK: [R, K] of these ids.
        tails_R: [R] the probability of all other ids together; 0 for samples.
    """

    rows: Tensor
    ids_RK: Tensor
    probabilities_RK: Tensor
    tails_R: Tensor


def systematic_counts(probabilities_NV: Tensor, draws: int, uniform_N: Tensor) -> Tensor:
    """[N, V] int64: how often each id is drawn; every row adds up to `draws`, and E[counts] = draws · p.

    The draws of a row are the points (u + k) / draws, k = 0, 1, …, on the row's cumulative probabilities, so an id is
    drawn ⌊draws·p⌋ or ⌈draws·p⌉ times.

    Args:
        probabilities_NV: [N, V], rows that add up to 1.
        uniform_N: [N] one number in [0, 1) per row.
    """
    reached = probabilities_NV.double().cumsum(-1)
    before = torch.ceil(reached * (draws / reached[:, -1:]) - uniform_N.double()[:, None]).clamp_(0, draws).long()
    before[:, -1] = draws
    return torch.diff(before, dim=-1, prepend=torch.zeros_like(before[:, :1]))


def top_k(probabilities_NV: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """([N, K] ids, [N, K] their probabilities, [N] the mass of the others), K = min(k, V)."""
    likeliest = probabilities_NV.topk(min(k, probabilities_NV.shape[1]), dim=-1)
    tail = (probabilities_NV.sum(-1) - likeliest.values.sum(-1)).clamp(min=0)
    if likeliest.values.shape[1] == probabilities_NV.shape[1]:
        tail = torch.zeros_like(tail)
    return likeliest.indices, likeliest.values, tail


def sparse_kl_rows(
    logits_nV: Tensor,
    ids_nK: Tensor,
    probabilities_nK: Tensor,
    tails_n: Tensor,
    targets_n: Tensor,
    weights_n: Tensor,
    alpha: Tensor,
    temperature: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropies [n], τ²·KL over the K ids and the tail [n], and the gradient [n, V] of Σ weight·CE + α·τ²·KL.

    With the student's q at temperature τ the gradient of the soft term is ατ·(q_j - p_j) for the K ids, and
    ατ·q_j·(1 - tail / q_tail) for the others. Computed in fp32, or fp64 if the logits are.

    Args:
        alpha, temperature: [] α, τ; tensors for the reason given in `losses.kernels`.
    """
    z = logits_nV if logits_nV.dtype == torch.float64 else logits_nV.float()
    normalizer = torch.logsumexp(z, -1)
    entropies = normalizer - z.gather(1, targets_n[:, None])[:, 0]
    tempered = z / temperature
    log_q = tempered - torch.logsumexp(tempered, -1)[:, None]
    p, tails = probabilities_nK.to(z.dtype), tails_n.to(z.dtype)
    log_q_ids = log_q.gather(1, ids_nK)
    q_ids = torch.where(p > 0, torch.exp(log_q_ids), 0.0)
    q_tails = (1 - q_ids.sum(-1)).clamp(min=TINY)
    # Where p is 0 the product is 0 too, whatever the logarithms are.
    divergence = torch.where(p > 0, p * (torch.log(p.clamp(min=TINY)) - log_q_ids), 0.0).sum(-1)
    divergence = divergence + torch.where(
        tails > 0, tails * (torch.log(tails.clamp(min=TINY)) - torch.log(q_tails)), 0.0
    )
    soft = alpha * temperature
    ratio = tails / q_tails
    gradient = weights_n[:, None] * torch.exp(z - normalizer[:, None])
    gradient = gradient + (soft * (1 - ratio))[:, None] * torch.exp(log_q)
    gradient = gradient.scatter_add(1, ids_nK, soft * (ratio[:, None] * q_ids - p))
    gradient = gradient.scatter_add(1, targets_n[:, None], -weights_n[:, None])
    return entropies, temperature**2 * divergence, gradient.to(logits_nV.dtype)
