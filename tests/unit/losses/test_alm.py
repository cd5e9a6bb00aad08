"""Approximate likelihood matching: the paper's formula, its gradient, and likelihoods at the ends."""

from __future__ import annotations

import math

import pytest
import torch

from distillkit.losses.alm import LIKELIHOOD_SOFTENING, chunk_sums, likelihood_divergence


def as_printed(teacher: float, student: float) -> float:
    """τ·KL between the two Bernoulli distributions of p^(1/τ) and q^(1/τ)."""
    p, q = math.exp(teacher / LIKELIHOOD_SOFTENING), math.exp(student / LIKELIHOOD_SOFTENING)
    return LIKELIHOOD_SOFTENING * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))


def test_the_formula_of_the_paper() -> None:
    teacher, student = torch.rand(20, dtype=torch.float64) * -300 - 1, torch.rand(20, dtype=torch.float64) * -300 - 1
    expected = [as_printed(p, q) for p, q in zip(teacher.tolist(), student.tolist(), strict=True)]
    # The likelihoods are kept a millionth away from one, in the exponent.
    assert likelihood_divergence(teacher, student).tolist() == pytest.approx(expected, rel=1e-3)
    assert likelihood_divergence(teacher, teacher).abs().max() < 1e-12


def test_the_gradient_goes_to_the_student() -> None:
    teacher = torch.tensor([-0.5, -20.0, -400.0], dtype=torch.float64)
    student = torch.tensor([-3.0, -1.0, -90.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: likelihood_divergence(teacher, values), (student,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_likelihoods_at_the_ends_stay_finite(dtype: torch.dtype) -> None:
    ends = torch.tensor([0.0, 1e-9, -1e-30, -1e4], dtype=dtype)
    teacher, student = torch.cartesian_prod(ends, ends).unbind(-1)
    student = student.clone().requires_grad_()
    value = likelihood_divergence(teacher, student)
    value.sum().backward()
    assert student.grad is not None
    assert value.isfinite().all()
    assert student.grad.isfinite().all()


def test_sums_leave_out_tokens_in_no_chunk() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert chunk_sums(values, torch.tensor([0, -1, 2, 0]), 3).tolist() == [9, 0, 4]
