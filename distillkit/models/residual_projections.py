"""The linear layers of a decoder block that write into its hidden states, found by running it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

# What the output of a block may differ from the prediction, relative to the change, and still be linear.
_NEARLY_LINEAR = 1e-2


def residual_projections(model: nn.Module, block: nn.Module, run: Callable[[], Tensor]) -> list[nn.Module]:
    """The layers in whose weights the block's output is linear, in the order in which they run; [] if the last is none.

    The last one (the MLP's way back to the hidden size) as the block is; the ones before it (attention's) where the last
    one is silent, as what they write is also what it reads.

    Args:
        model: that the block is part of; a layer that shares its weight with another part of it does not count.
        run: the block's output [B, T, d] on a few tokens, the same in every call, without rounding to a coarse format.
    """
    ran = _run_layers(block, run)
    width = run().shape[-1]
    found = [layer for layer in ran if _outputs(layer) == width and ran.count(layer) == 1]
    if not found or not _is_its_own(model, found[-1]) or not _is_linear(found[-1], run):
        return []
    last = found[-1]
    with _silent(last):
        earlier = [layer for layer in found[:-1] if _is_its_own(model, layer) and _is_linear(layer, run)]
    return [*earlier, last]


def _run_layers(block: nn.Module, run: Callable[[], Tensor]) -> list[nn.Module]:
    ran: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, _values, _output: ran.append(module))
        for module in block.modules()
        if isinstance(module, (nn.Linear, Conv1D))
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return ran


def _outputs(layer: nn.Module) -> int:
    return int(layer.nf) if isinstance(layer, Conv1D) else int(layer.out_features)  # type: ignore[arg-type]


def _is_its_own(model: nn.Module, layer: nn.Module) -> bool:
    """Whether no other part of the model has the same weight."""
    own = {id(parameter) for parameter in layer.parameters(recurse=False)}
    found = [parameter for _, parameter in model.named_parameters(remove_duplicate=False) if id(parameter) in own]
    return len(found) == len(own)


def _is_linear(layer: nn.Module, run: Callable[[], Tensor]) -> bool:
    weight = layer.weight
    if not isinstance(weight, Tensor):
        return False
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(weight.shape, generator=generator).to(weight.device, weight.dtype) * weight.detach().std()
    own = weight.detach().clone()
    with inputs_of(layer) as inputs:
        plain = run().flatten(0, 1)
    values = inputs[-1].flatten(0, -2)
    if len(values) != len(plain):
        return False
    predicted = values @ (change if isinstance(layer, Conv1D) else change.T)
    try:
        with torch.no_grad():
            weight.add_(change)
        moved = run().flatten(0, 1) - plain
    finally:
        with torch.no_grad():
            weight.copy_(own)
    apart = (moved - predicted).norm()
    return bool(apart <= _NEARLY_LINEAR * predicted.norm()) and bool(predicted.norm() > 0)


@contextlib.contextmanager
def _silent(layer: nn.Module) -> Iterator[None]:
    """While this is open, a layer gives zeros."""

    def zeros(_module: nn.Module, _values: Any, output: Any) -> Tensor:
        return torch.zeros_like(output)

    hook = layer.register_forward_hook(zeros)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """While this is open, the inputs of a layer are noted."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _module, values: seen.append(values[0]))
    try:
        yield seen
    finally:
        hook.remove()


def weight_inputs(layer: Any) -> int:
    """Numbers per token that a layer reads."""
    return int(layer.weight.shape[0] if isinstance(layer, Conv1D) else layer.weight.shape[1])


def add_to(layer: Any, change: Tensor) -> None:
    """Add [m, d] to the weight of a layer, and a last row to its bias."""
    inputs = weight_inputs(layer)
    weights = change[:inputs] if isinstance(layer, Conv1D) else change[:inputs].T
    with torch.no_grad():
        layer.weight.add_(weights.to(layer.weight.device, layer.weight.dtype))
        if len(change) > inputs:
            layer.bias.add_(change[inputs].to(layer.bias.device, layer.bias.dtype))
