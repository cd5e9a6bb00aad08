"""Divergences as pure functions: naive float64 sums, gradients, limits, and rows at the edge of what floats can say."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from distillkit import registry
from distillkit.losses.divergences import (
    IMPOSSIBLE,
    Divergence,
    alpha_beta,
    forward_kl,
    jensen_shannon,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    taid,
    taid_target,
    taid_weight,
    total_variation,
)  # fmt: skip

NAMES = sorted(registry.DIVERGENCES)


def log_probs(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(torch.randn(*shape, dtype=torch.float64, generator=generator) * scale, dim=-1)


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def mixed(mix: float, p: list[float], q: list[float]) -> list[float]:
    return [mix * a + (1 - mix) * b for a, b in zip(p, q, strict=True)]


def alpha_beta_as_printed(p: list[float], q: list[float], alpha: float, beta: float) -> float:
    total = alpha + beta
    return -sum(
        a**alpha * b**beta - alpha / total * a**total - beta / total * b**total for a, b in zip(p, q, strict=True)
    ) / (alpha * beta)


# The formulas as the papers print them: (p, q, mix, α, β) -> nats.
FORMULAS = {
    "forward-kl": lambda p, q, *_: kl(p, q),
    "taid": lambda p, q, *_: kl(p, q),
    "reverse-kl": lambda p, q, *_: kl(q, p),
    "jsd": lambda p, q, mix, *_: mix * kl(p, mixed(mix, p, q)) + (1 - mix) * kl(q, mixed(mix, p, q)),
    "skew-kl": lambda p, q, mix, *_: kl(p, mixed(mix, p, q)),
    "skew-reverse-kl": lambda p, q, mix, *_: kl(q, mixed(mix, q, p)),
    "total-variation": lambda p, q, *_: 0.5 * sum(abs(a - b) for a, b in zip(p, q, strict=True)),
    "alpha-beta": lambda p, q, _, alpha, beta: alpha_beta_as_printed(p, q, alpha, beta),
}


@pytest.mark.parametrize(("mix", "alpha", "beta"), [(0.5, 0.2, 0.7), (0.1, 1.0, 0.5), (0.9, 0.05, 0.05)])
@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_the_papers_formula(name, mix, alpha, beta):
    p, q = log_probs(6, 9), log_probs(6, 9, seed=1)
    expected = [FORMULAS[name](p[n].exp().tolist(), q[n].exp().tolist(), mix, alpha, beta) for n in range(6)]
    assert Divergence(name, mix=mix, ab_alpha=alpha, ab_beta=beta)(p, q).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_zero_for_equals_and_positive_otherwise(name, dtype):
    p, q = log_probs(8, 11).to(dtype), log_probs(8, 11, seed=1).to(dtype)
    found = Divergence(name)(p, p)
    assert found.dtype == dtype
    assert found.abs().max() <= 1e-6 if dtype == torch.float32 else found.abs().max() <= 1e-15
    assert (Divergence(name)(p, q) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradient(name):
    p = log_probs(3, 5)
    p[:, 2] = -torch.inf
    p = torch.log_softmax(p, -1)
    logits = log_probs(3, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: Divergence(name)(p, torch.log_softmax(z, -1)), (logits,))


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_is_a_constant(name):
    p, q = log_probs(3, 5).requires_grad_(), log_probs(3, 5, seed=1).requires_grad_()
    Divergence(name)(p, q).sum().backward()
    assert p.grad is None
    assert q.grad is not None


@pytest.mark.parametrize("name", NAMES)
def test_columns_that_both_rule_out_contribute_nothing(name):
    p, q = log_probs(3, 5), log_probs(3, 5, seed=1)
    padding = torch.full((3, 2), -torch.inf, dtype=torch.float64)
    padded_q = torch.cat([q, padding], 1).requires_grad_()
    value = Divergence(name)(torch.cat([p, padding], 1), padded_q)
    torch.testing.assert_close(value, Divergence(name)(p, q))
    value.sum().backward()
    assert padded_q.grad is not None
    assert padded_q.grad[:, 5:].abs().max() == 0
    assert padded_q.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits(name, dtype):
    """Finite value and gradient for whatever a softmax can be given, and for a teacher that rules tokens out."""
    rows = [list(row) for row in itertools.product([0.0, 80.0, -1e4, 1e4], repeat=3)]
    p, q = zip(*itertools.product(rows, rows), strict=True)
    logits = torch.tensor(q, dtype=dtype, requires_grad=True)
    teacher = torch.tensor(p, dtype=dtype)
    teacher = torch.cat([teacher, torch.full((len(p), 1), -torch.inf, dtype=dtype)], 1)
    student = torch.log_softmax(torch.cat([logits, torch.zeros(len(q), 1, dtype=dtype)], 1), -1)
    value = Divergence(name)(torch.log_softmax(teacher, -1), student)
    assert value.isfinite().all()
    # Σ is over nearly equal numbers where the rows agree: rounding may leave a hair below zero.
    assert (value >= -1e-6).all()
    value.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_jsd_reaches_its_ends_without_a_jump():
    p, q = log_probs(4, 7), log_probs(4, 7, seed=1)
    for end in (1e-4, 1e-6, 1e-9):
        torch.testing.assert_close(jensen_shannon(p, q, end) / end, forward_kl(p, q), rtol=100 * end, atol=1e-6)
        other = jensen_shannon(p, q, 1 - end) / end
        torch.testing.assert_close(other, reverse_kl(p, q), rtol=100 * end, atol=1e-6)
    torch.testing.assert_close(
        jensen_shannon(p.float(), q.float(), 1e-6) * 1e6, forward_kl(p, q).float(), rtol=1e-2, atol=1e-2
    )


def test_skew_is_between():
    p, q = log_probs(4, 7), log_probs(4, 7, seed=1)
    torch.testing.assert_close(skew_kl(p, q, 1e-9), forward_kl(p, q), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(skew_reverse_kl(p, q, 1e-9), reverse_kl(p, q), rtol=1e-6, atol=1e-6)


def test_alpha_beta_has_the_known_limits():
    p, q = log_probs(4, 7), log_probs(4, 7, seed=1)
    torch.testing.assert_close(alpha_beta(p, q, 1.0, 0.0), forward_kl(p, q))
    torch.testing.assert_close(alpha_beta(p, q, 0.0, 1.0), reverse_kl(p, q))
    torch.testing.assert_close(alpha_beta(p, q, 0.0, 0.0), 0.5 * (p - q).square().sum(-1))
    for alpha, beta in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        near = alpha_beta(p, q, max(alpha, 2e-6), max(beta, 2e-6))
        torch.testing.assert_close(near, alpha_beta(p, q, alpha, beta), rtol=1e-4, atol=1e-4)
    # In float32 too: the differences of nearly equal numbers are taken in float64.
    near = alpha_beta(p.float(), q.float(), 1.0, 1e-5)
    torch.testing.assert_close(near, forward_kl(p, q).float(), rtol=1e-3, atol=1e-4)


def test_what_the_teacher_rules_out_costs_the_reverse_divergence_a_hundred_nats():
    p, q = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[math.log(0.75), math.log(0.25)]])
    expected = 0.75 * math.log(0.75) + 0.25 * (math.log(0.25) - IMPOSSIBLE)
    assert reverse_kl(p, q).item() == pytest.approx(expected)


def test_total_variation_is_bounded():
    assert total_variation(torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])).tolist() == [1]


def test_taid_goes_from_a_mixture_of_logits_to_the_teacher():
    p, q = log_probs(4, 7), log_probs(4, 7, seed=1).requires_grad_()
    half = taid_target(p, q, 0.5)
    assert not half.requires_grad
    torch.testing.assert_close(half, torch.log_softmax((p + q.detach()) / 2, -1))
    torch.testing.assert_close(taid_target(p, q, 1.0), p)
    torch.testing.assert_close(taid_target(p, q, 0.0), q.detach())
    impossible = torch.log_softmax(p.masked_fill(torch.arange(7) == 3, -torch.inf), -1)
    assert taid_target(impossible, q, 0.5)[:, 3].isneginf().all()
    assert taid_target(impossible, q, 0.5).exp().sum(-1).tolist() == pytest.approx([1] * 4)
    assert [taid_weight(fraction) for fraction in (-1, 0, 0.5, 1, 2)] == pytest.approx([0.4, 0.4, 0.7, 1, 1])
    expected = forward_kl(taid_target(p, q, 0.7), q)
    torch.testing.assert_close(taid(p, q, 0.5), expected)
    torch.testing.assert_close(Divergence("taid")(p, q, training_fraction=0.5), expected)
    torch.testing.assert_close(Divergence("taid")(p, q), forward_kl(p, q))


def test_what_underflows_is_nothing_too():
    # exp(-200) is zero in float32, and 0 · inf would be NaN.
    p = torch.tensor([[0.0, -200.0]])
    q = torch.tensor([[0.0, -torch.inf]])
    assert forward_kl(p, q).tolist() == [0]


def test_a_student_that_excludes_what_the_teacher_says_is_infinitely_wrong():
    assert forward_kl(torch.log(torch.tensor([[0.5, 0.5]])), torch.tensor([[0.0, -torch.inf]])).tolist() == [torch.inf]


def test_names_and_ranges():
    with pytest.raises(ValueError, match="no divergence"):
        Divergence("kl")
    p, q = log_probs(2, 3), log_probs(2, 3, seed=1)
    for name in ("jsd", "skew-kl", "skew-reverse-kl"):
        with pytest.raises(ValueError, match="mix"):
            Divergence(name, mix=1.0)(p, q)


def test_a_setting_reaches_the_functions_that_take_it_and_none_stands_for_their_default():
    p, q = log_probs(4, 7), log_probs(4, 7, seed=1)
    assert Divergence("reverse-kl", mix=0.3, ab_alpha=1.0).settings == {}
    torch.testing.assert_close(Divergence("reverse-kl", mix=0.3)(p, q), reverse_kl(p, q))
    torch.testing.assert_close(Divergence("jsd", mix=0.3, ab_beta=2.0)(p, q), jensen_shannon(p, q, 0.3))
    for name, function in (("jsd", jensen_shannon), ("skew-kl", skew_kl), ("alpha-beta", alpha_beta)):
        torch.testing.assert_close(Divergence(name, mix=None, ab_alpha=None)(p, q), function(p, q))
    assert jensen_shannon(p, q).tolist() == jensen_shannon(p, q, 0.5).tolist()
    assert skew_kl(p, q).tolist() == skew_kl(p, q, 0.1).tolist()
    assert skew_reverse_kl(p, q).tolist() == skew_reverse_kl(p, q, 0.1).tolist()
