"""Tempered distributions."""

from __future__ import annotations

import pytest
import torch

from distillkit.losses.tempered import temper


def test_temper():
    logits = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2
    torch.testing.assert_close(temper(logits, 2.0), torch.log_softmax(logits / 2, -1))
    torch.testing.assert_close(temper(torch.log_softmax(logits, -1), 2.0), temper(logits, 2.0))
    logits[:, 2] = -torch.inf
    assert temper(logits, 2.0)[:, 2].isneginf().all()
    assert temper(logits, 2.0).exp().sum(-1).tolist() == pytest.approx([1] * 4)
