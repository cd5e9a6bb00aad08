"""Universal logit distillation compares sorted probabilities, whatever the tokens."""

from __future__ import annotations

import torch

from distillkit.losses.uld import UniversalLogitLoss


def test_the_order_of_the_tokens_does_not_count() -> None:
    logits = torch.randn(3, 7, dtype=torch.float64)
    assert UniversalLogitLoss().rows(logits, logits[:, torch.randperm(7)]).abs().max() < 1e-12


def test_vocabularies_of_different_sizes() -> None:
    teacher = torch.log(torch.tensor([[0.5, 0.2, 0.3]]))
    student = torch.log(torch.tensor([[0.4, 0.6]]))
    for left, right in ((teacher, student), (student, teacher)):
        torch.testing.assert_close(UniversalLogitLoss().rows(left, right), torch.tensor([0.1 + 0.1 + 0.2]))


def test_the_temperature_is_of_both() -> None:
    teacher, student = torch.randn(3, 5), torch.randn(3, 4)
    torch.testing.assert_close(
        UniversalLogitLoss(2.0).rows(teacher, student), UniversalLogitLoss().rows(teacher / 2, student / 2)
    )
