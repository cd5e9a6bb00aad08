"""Divergences as pure functions."""

from __future__ import annotations

import math

import pytest
import torch

from distillkit.losses.divergences import DIVERGENCES, forward_kl


def log_probs(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(torch.randn(*shape, dtype=torch.float64, generator=generator) * scale, dim=-1)


def test_forward_kl_against_the_definition():
    p, q = log_probs(4, 7), log_probs(4, 7, seed=1)
    expected = [sum(math.exp(p[n, v]) * (p[n, v].item() - q[n, v].item()) for v in range(7)) for n in range(4)]
    assert forward_kl(p, q).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_zero_for_equals_and_positive_otherwise(name):
    p, q = log_probs(8, 11), log_probs(8, 11, seed=1)
    assert DIVERGENCES[name](p, p).abs().max() == 0
    assert (DIVERGENCES[name](p, q) > 0).all()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_gradient(name):
    p = log_probs(3, 5)
    p[:, 2] = -torch.inf
    p = torch.log_softmax(p, -1)
    logits = log_probs(3, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: DIVERGENCES[name](p, torch.log_softmax(z, -1)), (logits,))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_impossible_columns_contribute_nothing(name):
    p, q = log_probs(3, 5), log_probs(3, 5, seed=1)
    padding = torch.full((3, 2), -torch.inf, dtype=torch.float64)
    padded_q = torch.cat([q, padding], 1).requires_grad_()
    value = DIVERGENCES[name](torch.cat([p, padding], 1), padded_q)
    torch.testing.assert_close(value, DIVERGENCES[name](p, q))
    value.sum().backward()
    assert padded_q.grad[:, 5:].abs().max() == 0
    assert padded_q.grad.isfinite().all()


def test_what_underflows_is_nothing_too():
    # exp(-200) is zero in float32, and 0 · inf would be NaN.
    p = torch.tensor([[0.0, -200.0]])
    q = torch.tensor([[0.0, -torch.inf]])
    assert forward_kl(p, q).tolist() == [0]


def test_a_student_that_excludes_what_the_teacher_says_is_infinitely_wrong():
    assert forward_kl(torch.log(torch.tensor([[0.5, 0.5]])), torch.tensor([[0.0, -torch.inf]])).tolist() == [torch.inf]
