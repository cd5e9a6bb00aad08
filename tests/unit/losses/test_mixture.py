"""Several teachers as one: held against loops in float64, by value and by gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from distillkit.losses.chunked import StudentOutput, chunked_loss
from distillkit.losses.divergences import Divergence
from distillkit.losses.mapped_mass import MappedMass
from distillkit.losses.mixture import MixedTargets
from distillkit.losses.sparse import SparseTargets
from distillkit.losses.tempered import SoftLoss

N, V, K, ALPHA = 7, 13, 4, 0.6


@dataclass(frozen=True)
class Whole:
    """Log-weights at temperature 1 for some rows."""

    rows: Tensor
    values: Tensor

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        # As a teacher's head does: whoever asks may write on it.
        return self.values[begin:end].clone()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole(rows: list[int], seed: int, *, without: int | None = None) -> Whole:
    """Random log-weights; ids above 9 are impossible, and one row may have no target at all."""
    values = 3 * torch.randn(len(rows), V, dtype=torch.float64, generator=generator(seed))
    values[:, 10:] = -torch.inf
    if without is not None:
        values[rows.index(without)] = -torch.inf
    return Whole(torch.tensor(rows), values)


def likeliest(rows: list[int], seed: int, *, tails: bool = True) -> SparseTargets:
    generator_ = generator(seed)
    ids = torch.stack([torch.randperm(V, generator=generator_)[:K] for _ in rows])
    raw = torch.rand(len(rows), K + 1, dtype=torch.float64, generator=generator_) + 0.05
    ids[0, 2:], raw[0, 2:K] = 0, 0  # Fewer ids than others, filled up; …
    ids[0, 1] = 0  # … id 0 is among the real ones.
    ids[0, 0] = 5
    raw[:, K] *= float(tails)
    raw /= raw.sum(-1, keepdim=True)
    return SparseTargets(torch.tensor(rows), ids, raw[:, :K], raw[:, K])


def student(seed: int = 3) -> tuple[StudentOutput, Tensor, Tensor]:
    hidden = torch.randn(1, N + 1, 3, dtype=torch.float64, generator=generator(seed), requires_grad=True)
    weight = torch.randn(V, 3, dtype=torch.float64, generator=generator(seed + 1), requires_grad=True)
    return StudentOutput(hidden, lambda states: states @ weight.T, (weight,), V), hidden, weight


def reference(parts, tau: float, logits_NV: Tensor, divergence: Divergence) -> Tensor:
    """Row by row: the weighted mean of the probabilities of those that say something, then τ²·D; a tail is spread as the student
    spreads it."""
    total = logits_NV.new_zeros(())
    for row in range(N):
        log_q = torch.log_softmax(logits_NV[row] / tau, -1)
        mean, weights = logits_NV.new_zeros(V), 0.0
        for targets, weight in parts:
            place = (targets.rows == row).nonzero()
            if not len(place):
                continue
            index = int(place)
            if isinstance(targets, SparseTargets):
                p = torch.zeros(V, dtype=torch.float64)
                for name, value in zip(targets.ids_RK[index].tolist(), targets.probabilities_RK[index], strict=True):
                    p[name] += value
                rest = p == 0
                q = log_q.detach().exp()
                p[rest] = targets.tails_R[index] * q[rest] / q[rest].sum()
            elif bool((targets.values[index] == -math.inf).all()):
                continue
            else:
                p = torch.softmax(targets.values[index] / tau, -1)
            mean, weights = mean + weight * p, weights + weight
        if weights:
            soft = tau**2 * divergence((mean / weights).log()[None], log_q[None], training_fraction=0.5)[0]
            total = total + soft
    return total


def compared(parts, tau: float, divergence: str = "forward-kl", chunk_rows: int = 3) -> None:
    """Value and gradients of the chunked loss are those of the loops."""
    made, hidden, weight = student()
    rows, labels = torch.arange(N), torch.randint(0, V, (N,), generator=generator(9))
    soft = SoftLoss(tau, Divergence(divergence, mix=None, ab_alpha=0.2, ab_beta=0.7), training_fraction=0.5)
    found = chunked_loss(
        made, rows, labels, torch.zeros(N, dtype=torch.float64), MixedTargets(parts, tau), soft,
        alpha=ALPHA, divisor=torch.tensor(float(N)), chunk_rows=chunk_rows,
    )  # fmt: skip
    slopes = torch.autograd.grad(found.loss, [hidden, weight])
    logits = hidden.flatten(0, 1)[:N] @ weight.T
    expected = ALPHA * reference(parts, tau, logits, soft.divergence) / N
    torch.testing.assert_close(found.loss, expected)
    torch.testing.assert_close(slopes, torch.autograd.grad(expected, [hidden, weight]))


@pytest.mark.parametrize("tau", [1.0, 2.5])
@pytest.mark.parametrize("divergence", ["forward-kl", "reverse-kl", "jsd"])
def test_whole_distributions_are_mixed_as_probabilities(tau: float, divergence: str) -> None:
    """One teacher everywhere, one at some rows, one that says nothing at a row that it lists; rows 0 and 6 have one teacher or
    none."""
    parts = [
        (whole([1, 2, 3, 4, 5], 1), 0.5),
        (whole([1, 3, 5, 6], 2, without=3), 0.3),
        (whole([2, 5], 4, without=2), 0.2),
    ]
    if divergence == "reverse-kl":  # Infinite where the teachers rule out what the student does not.
        for targets, _ in parts:
            targets.values[:, 10:] = torch.where(targets.values[:, :3] == -math.inf, -math.inf, -2.0)
    compared(parts, tau, divergence)


@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_rows_are_found_in_every_chunk(chunk_rows: int) -> None:
    compared([(whole([0, 3], 1), 0.5), (whole([2, 3, 6], 2), 0.5)], 2.0, chunk_rows=chunk_rows)


@pytest.mark.parametrize("tau", [1.0, 2.0])
@pytest.mark.parametrize("tails", [True, False])
def test_sparse_targets_are_mixed_with_each_other_and_with_whole_ones(tau: float, tails: bool) -> None:
    compared([(likeliest([0, 2, 3], 1, tails=tails), 0.7), (likeliest([2, 3, 5], 2, tails=tails), 0.3)], tau)
    compared([(likeliest([0, 2, 3], 1, tails=tails), 0.7), (whole([1, 2, 3], 2), 0.3)], tau)


@pytest.mark.parametrize("tau", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["whole", "tails", "samples"])
def test_equal_teachers_are_one(tau: float, kind: str) -> None:
    """Of any weights, and of sparse ones that one is the loss with a tail bucket, which has a kernel of its own."""
    one = whole([1, 2, 4], 5) if kind == "whole" else likeliest([1, 2, 4], 5, tails=kind == "tails")
    results = []
    for targets in (one, MixedTargets([(one, 0.2), (one, 0.5), (one, 0.3)], tau)):
        made, hidden, weight = student()
        found = chunked_loss(
            made, torch.arange(N), torch.zeros(N, dtype=torch.long), torch.ones(N, dtype=torch.float64), targets,
            SoftLoss(tau), alpha=ALPHA, divisor=torch.tensor(float(N)), chunk_rows=2,
        )  # fmt: skip
        results.append([found.loss, found.soft_sum, *torch.autograd.grad(found.loss, [hidden, weight])])
    torch.testing.assert_close(*results)


def test_it_is_no_mixture_of_logits() -> None:
    """What one teacher is sure of and the other rules out keeps half of the probability; a mean of logits would leave next to
    nothing."""
    sure = torch.tensor([[20.0, 0.0, 0.0], [0.0, 20.0, 0.0]], dtype=torch.float64)
    parts = [(Whole(torch.tensor([0]), sure[index : index + 1]), 0.5) for index in range(2)]
    p = torch.softmax(MixedTargets(parts, 1.0).log_target(0, 1, 3), -1)
    torch.testing.assert_close(p[0, :2], torch.full((2,), 0.5, dtype=torch.float64), atol=1e-6, rtol=0)


def test_a_teacher_that_gives_nan_is_noticed() -> None:
    broken = whole([0, 1], 1)
    broken.values[0, 0] = math.nan
    assert torch.isnan(MixedTargets([(broken, 0.5), (whole([0, 1], 2), 0.5)], 1.0).log_target(0, 2, V)[0]).any()


def test_masses_go_over_to_the_sum_once() -> None:
    ours, theirs = MappedMass(), MappedMass(2.0, 3)
    theirs.add(torch.tensor(0.5), 1)
    ours.take(theirs)
    ours.take(theirs)
    assert (ours.mapped, ours.rows, theirs.mapped, theirs.rows) == (2.5, 4, 0.0, 0)
