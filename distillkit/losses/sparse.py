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

from distillkit.device.number_formats import widen
from distillkit.losses.kernels import finish

TINY = 1e-7  # The least mass that a student's tail is taken to have, in fp32.


@dataclass(frozen=True)
class SparseTargets:
    """The teacher's targets at some of the target rows, at the temperature of the run.

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
    drawn ⌊draws·p⌋ or ⌈draws·p⌉ times (Madow 1949).

    Args:
        probabilities_NV: [N, V], rows that add up to 1.
        draws: the draws of a row.
        uniform_N: [N] one number in [0, 1) per row.
    """
    reached = probabilities_NV.double().cumsum(-1)
    before = torch.ceil(reached * (draws / reached[:, -1:]) - uniform_N.double()[:, None]).clamp_(0, draws).long()
    before[:, -1] = draws
    return torch.diff(before, dim=-1, prepend=torch.zeros_like(before[:, :1]))


def top_k(probabilities_NV: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """([N, K] ids, [N, K] their probabilities, [N] the mass of the others), K = min(k, V).

    Args:
        probabilities_NV: [N, V], rows that add up to 1.
    """
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
    soft: Tensor,
    temperature: Tensor,
    tempered: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cross-entropies [n] and τ²·KL over the K ids and the tail [n], in nats, and at these ids [n, K] and the true tokens
    [n] the gradient of Σ weight·CE + soft·τ·KL; the logits are overwritten with it everywhere else (`finish_sparse`).

    With the student's q at temperature τ the gradient of the soft term is ατ·(q_j - p_j) for the K ids, and
    ατ·q_j·(1 - tail / q_tail) for the others. Computed in fp32, or fp64 if the logits are.

    Args:
        logits_nV: [n, V] of the student.
        ids_nK, probabilities_nK, tails_n: as in `SparseTargets`.
        targets_n: [n] the true tokens.
        weights_n: [n] the weight of each row's cross-entropy.
        soft, temperature: [] α·τ, τ; tensors for the reason given in `losses.kernels`.
        tempered: whether logits are divided by τ.
    """
    z = widen(logits_nV)
    normalizer = torch.logsumexp(z, -1)[:, None]
    tempered_normalizer = torch.logsumexp(z / temperature, -1)[:, None] if tempered else normalizer
    p, tails = probabilities_nK.to(z.dtype), tails_n.to(z.dtype)
    z_true, z_ids = z.gather(1, targets_n[:, None]), z.gather(1, ids_nK)
    log_q_ids = (z_ids / temperature if tempered else z_ids) - tempered_normalizer
    q_ids = torch.where(p > 0, torch.exp(log_q_ids), 0.0)
    q_tails = (1 - q_ids.sum(-1)).clamp(min=TINY)
    # Where p is 0 the product is 0 too, whatever the logarithms are.
    divergence = torch.where(p > 0, p * (torch.log(p.clamp(min=TINY)) - log_q_ids), 0.0).sum(-1)
    divergence = divergence + torch.where(
        tails > 0, tails * (torch.log(tails.clamp(min=TINY)) - torch.log(q_tails)), 0.0
    )
    weights, ratio = weights_n[:, None], (tails / q_tails)[:, None]

    def others(z: Tensor) -> Tensor:
        """The gradient where there is neither an id nor the true token."""
        hard = torch.exp(z - normalizer)
        q = torch.exp(z / temperature - tempered_normalizer) if tempered else hard
        return weights * hard + soft * (1 - ratio) * q

    own = soft * (ratio * q_ids - p)
    is_true = (ids_nK == targets_n[:, None]) & (p > 0)
    at_ids = others(z_ids) + own - torch.where(is_true, weights, 0.0)
    at_target = others(z_true)[:, 0] + torch.where(is_true, own, 0.0).sum(-1) - weights_n
    entropies = (normalizer - z_true)[:, 0]
    logits_nV.copy_(others(z))
    return entropies, temperature**2 * divergence, at_ids, at_target


def finish_sparse(
    gradient_nV: Tensor,
    ids_nK: Tensor,
    probabilities_nK: Tensor,
    at_ids_nK: Tensor,
    targets_n: Tensor,
    at_target_n: Tensor,
) -> Tensor:
    """Puts the gradient at the ids [n, K] and at the true tokens [n] where it belongs; returns `gradient_nV`, [n, V]."""
    # Entries that fill a row up repeat the row's first id: with two values for one place either could win.
    real = probabilities_nK > 0
    ids = torch.where(real, ids_nK, ids_nK[:, :1])
    values = torch.where(real, at_ids_nK, at_ids_nK[:, :1]).to(gradient_nV.dtype)
    rows = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
    return finish(gradient_nV.index_put_((rows, ids), values), targets_n, at_target_n)
