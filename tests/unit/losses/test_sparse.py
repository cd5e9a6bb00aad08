"""Sparse targets: loops in float64, gradients, and that the samples mean what they should."""

from __future__ import annotations

import math

import pytest
import torch

from distillkit.losses.chunked import StudentOutput, chunked_loss
from distillkit.losses.divergences import Divergence
from distillkit.losses.sparse import SparseTargets, finish_sparse, sparse_kl_rows, systematic_counts, top_k
from distillkit.losses.tempered import SoftLoss

N, V, K = 5, 17, 4
ALPHA = 0.6


def case() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(N, V, dtype=torch.float64, generator=generator) * 2
    ids = torch.stack([torch.randperm(V, generator=generator)[:K] for _ in range(N)])
    raw = torch.rand(N, K + 1, dtype=torch.float64, generator=generator)
    raw[0, K] = 0  # No tail …
    raw[1, 2:K], ids[1, 2:K] = 0, 0  # … and fewer ids than others.
    raw /= raw.sum(-1, keepdim=True)
    targets = torch.randint(0, V, (N,), generator=generator)
    weights = torch.rand(N, dtype=torch.float64, generator=generator)
    return logits, ids, raw[:, :K], raw[:, K], targets, weights


def by_loops(logits, ids, p, tails, targets, weights, tau: float) -> torch.Tensor:
    total = logits.new_zeros(())
    for row in range(N):
        own = torch.log_softmax(logits[row], -1)
        total = total - weights[row] * own[targets[row]]
        q = torch.softmax(logits[row] / tau, -1)
        named = [(int(i), float(x)) for i, x in zip(ids[row], p[row], strict=True) if x > 0]
        for index, probability in named:
            total = total + ALPHA * tau**2 * probability * (math.log(probability) - torch.log(q[index]))
        if tails[row] > 0:
            outside = sum(q[j] for j in range(V) if j not in dict(named))
            total = total + ALPHA * tau**2 * tails[row] * (torch.log(tails[row]) - torch.log(outside))
    return total


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_value_and_gradient_are_those_of_loops(tau: float) -> None:
    logits, ids, p, tails, targets, weights = case()
    leaf = logits.clone().requires_grad_()
    expected = by_loops(leaf, ids, p, tails, targets, weights, tau)
    (slope,) = torch.autograd.grad(expected, leaf)
    softness, temperature = torch.tensor(ALPHA * tau, dtype=torch.float64), torch.tensor(tau, dtype=torch.float64)
    entropies, soft, at_ids, at_target = sparse_kl_rows(
        logits, ids, p, tails, targets, weights, softness, temperature, tau != 1
    )
    torch.testing.assert_close((weights * entropies).sum() + ALPHA * soft.sum(), expected.detach())
    torch.testing.assert_close(finish_sparse(logits, ids, p, at_ids, targets, at_target), slope)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_stay_finite(size: float) -> None:
    logits, ids, p, tails, targets, weights = case()
    logits[:, 3] = size
    one = torch.tensor(1.0)
    gradient = logits.float()
    found = sparse_kl_rows(gradient, ids, p.float(), tails.float(), targets, weights.float(), one, one, False)
    for values in (gradient, *found):
        assert torch.isfinite(values).all()


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("chunk", [2, 4])
@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_all_ids_are_the_plain_loss(tau: float, chunk: int) -> None:
    """Every id kept, in another order, gives the exact cache's loss and gradients."""
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(1, 6, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(V, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    student = StudentOutput(hidden, lambda states: states @ weight.T, (weight,), V)
    log_target = torch.log_softmax(torch.randn(4, V, dtype=torch.float64, generator=generator), -1)
    rows, labels = torch.arange(5), torch.randint(0, V, (5,), generator=generator)
    guided = torch.tensor([0, 1, 3, 4])

    class Dense:
        def __init__(self) -> None:
            self.rows = guided

        def log_target(self, begin: int, end: int, columns: int) -> torch.Tensor:
            return log_target[begin:end]

    order = torch.randperm(V, generator=generator)
    probabilities = torch.softmax(log_target / tau, -1)[:, order]
    sparse = SparseTargets(guided, order.expand(4, V), probabilities, torch.zeros(4, dtype=torch.float64))
    values = []
    for targets in (Dense(), sparse):
        found = chunked_loss(
            student, rows, labels, torch.full((5,), 0.4, dtype=torch.float64), targets, SoftLoss(tau),
            alpha=ALPHA, divisor=torch.tensor(5), chunk_rows=chunk,
        )  # fmt: skip
        values.append((found.loss, *torch.autograd.grad(found.loss, [hidden, weight]), found.soft_sum))
    for dense, thin in zip(*values, strict=True):
        torch.testing.assert_close(thin, dense)
    with pytest.raises(ValueError, match="forward KL"):
        chunked_loss(
            student, rows, labels, torch.ones(5, dtype=torch.float64), sparse,
            SoftLoss(tau, Divergence("reverse-kl")), alpha=ALPHA, divisor=torch.tensor(5),
        )  # fmt: skip


def test_systematic_samples_are_floor_or_ceiling_and_right_on_average() -> None:
    generator = torch.Generator().manual_seed(2)
    p = torch.softmax(torch.randn(3, 50, dtype=torch.float64, generator=generator) * 3, -1)
    draws, times = 16, 4000
    uniform = (
        torch.arange(times, dtype=torch.float64) + 0.5
    ) / times  # Every offset, so the mean is exact but for these.
    mean = torch.zeros_like(p)
    for value in uniform:
        counts = systematic_counts(p, draws, value.expand(3))
        assert (counts.sum(-1) == draws).all()
        assert ((counts >= torch.floor(draws * p - 1e-9)) & (counts <= torch.ceil(draws * p + 1e-9))).all()
        mean += counts / draws / times
    assert float((mean - p).abs().max()) < 1e-4


@pytest.mark.parametrize("uniform", [0.0, 1 - 1e-12])
def test_samples_at_the_ends(uniform: float) -> None:
    p = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    counts = systematic_counts(p, 8, torch.full((2,), uniform, dtype=torch.float64))
    assert counts[0].tolist() == [0, 8, 0]
    assert counts[1, 1] == 0
    assert counts[1].sum() == 8


def test_what_is_impossible_is_never_drawn() -> None:
    generator = torch.Generator().manual_seed(4)
    p = torch.rand(200, 30, generator=generator) * (torch.rand(200, 30, generator=generator) > 0.6)
    p[:, 0] += 1e-3
    p /= p.sum(-1, keepdim=True)
    counts = systematic_counts(p, 64, torch.rand(200, generator=generator))
    assert int(counts[p == 0].sum()) == 0


def test_top_k_keeps_the_likeliest_and_the_mass_of_the_rest() -> None:
    p = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.25, 0.25, 0.3, 0.2]])
    ids, kept, tails = top_k(p, 2)
    assert ids[0].tolist() == [1, 3]
    assert kept[0].tolist() == pytest.approx([0.5, 0.25])
    assert tails.tolist() == pytest.approx([0.25, 0.45])
    assert top_k(p, 9)[2].tolist() == [0, 0]
