"""The embedding of a student whose head has the same weight: its gradient goes straight to the rows that were read.

Autograd would make a gradient of the whole vocabulary, zeros but for these rows, and add it to the head's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def add_rows_in_place(model: nn.Module, head: nn.Linear) -> bool:
    """Changes how the model's embedding is differentiated, if it shares the head's weight, on a CPU. Whether it did.

    The sum is the same up to the order of its terms. Elsewhere than on a CPU that order would be left to chance.
    """
    embedding: Any = getattr(model, "get_input_embeddings", lambda: None)()
    if type(embedding) is not nn.Embedding or embedding.weight is not head.weight:
        return False
    if embedding.max_norm is not None or embedding.scale_grad_by_freq or embedding.sparse:
        return False
    if embedding.weight.device.type != "cpu" or not embedding.weight.requires_grad:
        return False

    def forward(input: Tensor) -> Tensor:
        padding = -1 if embedding.padding_idx is None else embedding.padding_idx
        return _Rows.apply(embedding.weight, input, padding)  # type: ignore[no-any-return]

    embedding.forward = forward
    return True


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, padding: int) -> Tensor:
        ctx.weight, ctx.ids, ctx.padding = weight, ids, padding
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ids, weight = ctx.ids.flatten(), ctx.weight
        rows = gradients[0].flatten(0, -2).to(weight.dtype)
        if ctx.padding >= 0:
            rows = rows.masked_fill((ids == ctx.padding)[:, None], 0)
        # The head's gradient is there already, as the loss comes last and is differentiated first.
        total = torch.zeros_like(weight) if weight.grad is None else weight.grad
        total.index_add_(0, ids, rows)
        return (total if weight.grad is None else None), None, None
