"""A student made of some of the teacher's layers (as DistilGPT-2 was: Sanh et al. 2019, arXiv 1910.01108)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn

from distillkit.errors import UsageError

# Per-layer lists in configurations: they are cut like the layers themselves.
_COUNT_NAMES = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def evenly_spaced(count: int, total: int) -> list[int]:
    """`count` of `total` layer numbers, the first and the last among them."""
    if count == 1:
        return [0]
    return [round(index * (total - 1) / (count - 1)) for index in range(count)]


def decoder_blocks(model: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of decoder blocks of a causal language model: (its parent, its name there, the list).

    Raises:
        UsageError: the architecture has no such list, or several of equal length.
    """
    wanted = _layer_count(model.config)
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == wanted
    ]
    if len(found) != 1:
        raise UsageError(
            f"{type(model).__name__}: its layers cannot be told apart, so none can be left out",
            hint="name a student model instead of teacher:N",
        )
    return found[0]


def _layer_count(config: Any) -> int:
    for name in _COUNT_NAMES:
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    raise UsageError(
        f"{type(config).__name__} does not say how many layers it has", hint="name a student model instead of teacher:N"
    )


def keep_layers(model: nn.Module, layers: int | Sequence[int]) -> nn.Module:
    """A model with only some decoder blocks, independent of `model`, which stays as it is.

    Args:
        layers: how many to keep, evenly spaced and with the first and the last; or which.

    Raises:
        UsageError: more layers than there are, or an unknown architecture.
    """
    parent, name, blocks = decoder_blocks(model)
    total = len(blocks)
    kept = evenly_spaced(layers, total) if isinstance(layers, int) else list(layers)
    if len(kept) > total or max(kept) >= total:
        raise UsageError(
            f"the teacher has {total} layers, so {layers} cannot be kept", hint=f"use at most teacher:{total}"
        )
    # Without the full list during the copy, so that what is left out is never duplicated.
    setattr(parent, name, nn.ModuleList([blocks[index] for index in kept]))
    try:
        pruned = copy.deepcopy(model)
    finally:
        setattr(parent, name, blocks)
    _, _, pruned_blocks = _blocks_of_length(pruned, len(kept), name)
    for position, block in enumerate(pruned_blocks):
        # The key-value cache is addressed by this number.
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", position)  # noqa: B010 - a number, not the tensor that torch expects
    _cut_config(pruned.config, kept, total)
    return pruned


def _blocks_of_length(model: nn.Module, length: int, name: str) -> tuple[nn.Module, str, nn.ModuleList]:
    return next(
        (parent, child_name, child)
        for parent in model.modules()
        for child_name, child in parent.named_children()
        if child_name == name and isinstance(child, nn.ModuleList) and len(child) == length
    )


def _cut_config(config: Any, kept: Sequence[int], total: int) -> None:
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == total:
            setattr(config, name, [value[index] for index in kept])
    for name in _COUNT_NAMES:
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, len(kept))
