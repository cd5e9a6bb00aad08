"""Buffers that are allocated once and used again in every step.

Fresh memory is dear on a CPU: the system clears every page when it is first touched, and a C library returns large blocks
at once. A matrix product whose result is a tenth of a gigabyte spends most of its time on that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


class Buffers:
    """Tensors by name. A tensor taken under a name is overwritten by the next one taken under that name."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A contiguous tensor of this shape and format, not initialised."""
        needed = math.prod(shape) * dtype.itemsize
        kept = self._kept.get(name)
        if kept is None or len(kept) < needed or kept.device != device:
            self._kept.pop(name, None)  # Before the new one is allocated, or both would take memory.
            del kept
            kept = self._kept[name] = torch.empty(needed, dtype=torch.uint8, device=device)
        return kept[:needed].view(dtype).view(*shape)


def linear_rows(buffers: Buffers, name: str, rows_nD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """[n, V] output of a linear layer, without a graph; on a CPU in a buffer, overwritten by the next of that name.

    Args:
        buffers, name: where the output lies on a CPU.
        rows_nD: [n, D] inputs.
        weight_VD, bias_V: of the layer, [V, D] and [V].
    """
    if rows_nD.device.type != "cpu":  # CUDA's allocator keeps memory itself.
        return functional.linear(rows_nD, weight_VD, bias_V)
    output = buffers.take(name, (len(rows_nD), len(weight_VD)), rows_nD.dtype, rows_nD.device)
    if bias_V is None:
        return torch.mm(rows_nD, weight_VD.T, out=output)
    return torch.addmm(bias_V, rows_nD, weight_VD.T, out=output)
