"""Linear layers in int8: weights with one scale per output, activations with one scale per row, sums in int32.

Per row, not per batch: the output of a text does not depend on its neighbours, and the few tokens with huge activations
(the first of a text, often) do not coarsen all others. (LLM.int8(), arXiv 2208.07339, calls it vector-wise.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_HIGHEST = 127
# torch names its int8 product with an underscore, and has not changed the name since 2.1; `int8_problem` tries it out.
_int8_product: Any = getattr(torch, "_int_mm", None)
_ROWS = 512  # Rows at a time: intermediate results stay in the processor's cache.


def int8_problem(device: torch.device) -> str | None:
    """Why int8 layers cannot compute there; None if they can."""
    if device.type != "cpu":
        return f"it is for the CPU, this is {device.type}"
    if _int8_product is None:
        return "this torch has no int8 matrix product"
    # Some processors without VNNI add up in 16 bits, which overflow.
    left, right = (torch.full(shape, _HIGHEST, dtype=torch.int8) for shape in ((32, 64), (64, 32)))
    try:
        exact = bool((_int8_product(left, right) == 64 * _HIGHEST**2).all())
    except RuntimeError as error:
        return f"this torch has no int8 matrix product here ({str(error).splitlines()[0]})"
    return None if exact else "this processor's int8 products overflow"


class Int8Linear(nn.Module):
    """A frozen linear layer.

    Args:
        weight_OI: [O, I].
        bias_O: [O] or None.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        scale_O1 = _scale(weight_OI)
        self.weight_OI: Tensor
        self.scale_O: Tensor
        self.bias_O: Tensor | None
        self.register_buffer("weight_OI", (weight_OI.float() / scale_O1).round_().to(torch.int8))
        self.register_buffer("scale_O", scale_O1[:, 0])
        self.register_buffer("bias_O", None if bias_O is None else bias_O.detach().float())

    def forward(self, values: Tensor) -> Tensor:
        """[..., I] -> [..., O], in the format of `values`."""
        rows = values.flatten(0, -2)
        output = rows.new_empty(len(rows), len(self.scale_O))
        for begin in range(0, len(rows), _ROWS):
            output[begin : begin + _ROWS] = self._product(rows[begin : begin + _ROWS])
        return output.view(*values.shape[:-1], -1)

    def _product(self, rows_nI: Tensor) -> Tensor:
        scale_n1 = _scale(rows_nI)
        small_nI = (rows_nI.float() / scale_n1).round_().to(torch.int8)
        product_nO = _int8_product(small_nI, self.weight_OI.t()).float().mul_(scale_n1).mul_(self.scale_O)
        return product_nO if self.bias_O is None else product_nO.add_(self.bias_O)


def _scale(rows: Tensor) -> Tensor:
    """[n, 1] fp32: the scale that makes the largest number of each row [n, I] 127; rows of zeros stay zeros."""
    return rows.detach().abs().amax(-1, keepdim=True).float().clamp_min(1e-30) / _HIGHEST


def quantise_layers(module: nn.Module) -> Callable[[], None]:
    """Replace all linear layers below `module`, GPT-2's included, by int8 layers. Returns a function that undoes it."""
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                layer = Int8Linear(child.weight, child.bias)
            elif isinstance(child, Conv1D):
                layer = Int8Linear(child.weight.t(), child.bias)
            else:
                continue
            replaced.append((parent, name, child))
            setattr(parent, name, layer)

    def undo() -> None:
        for parent, name, child in replaced:
            setattr(parent, name, child)

    return undo
