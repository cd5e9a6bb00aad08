"""The tied embedding's gradient, added to the rows that were read, is the one that autograd would have made."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distillkit.training.tied_embedding import add_rows_in_place


class Tied(nn.Module):
    def __init__(self, padding: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(11, 4, padding_idx=padding, dtype=torch.float64)
        self.head = nn.Linear(4, 11, bias=False, dtype=torch.float64)
        self.head.weight = self.embedding.weight

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def loss(self) -> torch.Tensor:
        ids = torch.tensor([[1, 3, 3], [7, 1, 2]])
        hidden = torch.tanh(self.embedding(ids))
        with torch.no_grad():
            if self.head.weight.grad is None:  # As `LinearHead` does: its part is there first.
                self.head.weight.grad = torch.ones_like(self.head.weight)
        return (self.head(hidden.detach()).sum() * 0 + hidden.pow(3)).sum()


@pytest.mark.parametrize("padding", [None, 3])
def test_the_sum_is_the_same(padding: int | None) -> None:
    plain, ours = Tied(padding), Tied(padding)
    assert add_rows_in_place(ours, ours.head)
    for _ in range(2):  # Two micro-batches add up.
        for model in (plain, ours):
            model.loss().backward()
        torch.testing.assert_close(ours.embedding.weight.grad, plain.embedding.weight.grad)
    ours.zero_grad()
    plain.zero_grad()
    for model in (plain, ours):
        model.embedding(torch.tensor([5, 5])).sum().backward()
    torch.testing.assert_close(ours.embedding.weight.grad, plain.embedding.weight.grad)


def test_what_is_not_tied_stays_as_it_is() -> None:
    model = Tied()
    assert not add_rows_in_place(model, nn.Linear(4, 11))
    model.embedding.weight.requires_grad_(False)
    assert not add_rows_in_place(model, model.head)
    scaled = Tied()
    scaled.embedding.scale_grad_by_freq = True
    assert not add_rows_in_place(scaled, scaled.head)
