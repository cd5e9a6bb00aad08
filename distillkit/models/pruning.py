"""A student made of some of the teacher's layers (as DistilGPT-2 was: Sanh et al. 2019, arXiv 1910.01108)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn

from distillkit.errors import UsageError

LAYER_COUNT_NAMES = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
# What blocks call their own number, by which the key-value cache is addressed.
_NUMBER_NAMES = ("layer_idx", "layer_id")
# Lists in configurations that are as long as there are layers are cut like the layers, but these are never that.
_NOT_PER_LAYER = ("architectures", "keys_to_ignore_at_inference")


def evenly_spaced(count: int, total: int) -> list[int]:
    """`count` of `total` layer numbers, the first and the last among them; the first alone where `count` is 1."""
    if count == 1:
        return [0]
    return [round(index * (total - 1) / (count - 1)) for index in range(count)]


def decoder_blocks(model: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of decoder blocks of a causal language model: (its parent, its name there, the list).

    Raises:
        UsageError: the architecture has no such list, or several of equal length.
    """
    wanted = _layer_count(model.config)
    lists = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == wanted
    ]
    # The outermost counts where lists lie inside one another (the experts of a layer).
    inner = {module for _, _, blocks in lists for block in blocks for module in block.modules()}
    lists = [(parent, name, blocks) for parent, name, blocks in lists if blocks not in inner]
    if len(lists) != 1:
        raise UsageError(
            f"{type(model).__name__}: its layers cannot be told apart, so none can be left out",
            hint="name a student model instead of teacher:N",
        )
    return lists[0]


def _layer_count(config: Any) -> int:
    text_config = config.get_text_config(decoder=True)
    for name in LAYER_COUNT_NAMES:
        value = getattr(text_config, name, None)
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
        UsageError: layers that are not there, not in ascending order, or an unknown architecture.
    """
    parent, name, blocks = decoder_blocks(model)
    total = len(blocks)
    kept = evenly_spaced(layers, total) if isinstance(layers, int) else list(layers)
    if not kept or kept != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= total:
        highest = f"teacher:{total}" if isinstance(layers, int) else f"layers 0 to {total - 1} in ascending order"
        raise UsageError(f"the teacher has {total} layers, so {layers} cannot be kept", hint=f"use at most {highest}")
    # Without the full list during the copy, so that what is left out is never duplicated.
    setattr(parent, name, nn.ModuleList([blocks[index] for index in kept]))
    try:
        pruned = copy.deepcopy(model)
    finally:
        setattr(parent, name, blocks)
    _, _, pruned_blocks = _blocks_of_length(pruned, len(kept), name)
    for position, block in enumerate(pruned_blocks):
        for module in block.modules():
            for number in _NUMBER_NAMES:
                if isinstance(getattr(module, number, None), int):
                    setattr(module, number, position)
    _cut_config(pruned.config.get_text_config(decoder=True), kept, total)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return pruned


def _blocks_of_length(model: nn.Module, length: int, name: str) -> tuple[nn.Module, str, nn.ModuleList]:
    return next(
        (parent, child_name, child)
        for parent in model.modules()
        for child_name, child in parent.named_children()
        if child_name == name and isinstance(child, nn.ModuleList) and len(child) == length
    )


def _cut_config(config: Any, kept: Sequence[int], total: int) -> None:
    # GPT-Neo writes its list of layer kinds as [[[kind, …], repetitions], …] and checks one against the other.
    if isinstance(kinds := getattr(config, "attention_types", None), list):
        each = [kind for group, repetitions in kinds for _ in range(repetitions) for kind in group]
        config.attention_types = [[[each[index]], 1] for index in kept]
    for name, value in list(vars(config).items()):
        per_layer = not name.endswith("_token_id") and name not in (*_NOT_PER_LAYER, "attention_types")
        if per_layer and isinstance(value, list) and len(value) == total:
            setattr(config, name, [value[index] for index in kept])
    for name in LAYER_COUNT_NAMES:
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, len(kept))
