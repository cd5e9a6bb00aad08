"""A model whose decoder blocks lie on several devices: which block on which, as accelerate and transformers take it.

Embedding, last norm and head stay together on the first device, where texts come in and hidden states are wanted; a hidden
state goes from device to device and back. The devices compute one after the other: what is won is memory, not time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from distillkit.models.pruning import decoder_blocks


@dataclass(frozen=True)
class Placement:
    """Where the blocks of a model lie, in their order.

    Attributes:
        blocks: device number to the number of blocks on it, in the order in which a text meets them; the first device has
            also what is no block.
        bytes: device number to the bytes of the weights on it.
    """

    blocks: Mapping[int, int]
    bytes: Mapping[int, int]


def spread_blocks(blocks: int, block_bytes: int, other_bytes: int, room: Mapping[int, int]) -> Placement | None:
    """Fill devices to like shares of their room; None where that does not suffice.

    Args:
        blocks: how many there are, of one size.
        block_bytes: of the weights of one.
        other_bytes: of all other weights.
        room: device number to bytes, the first device first.
    """
    counts = dict.fromkeys(room, 0)
    used = {device: other_bytes * (position == 0) for position, device in enumerate(room)}
    for _ in range(blocks):
        emptiest = min(room, key=lambda device: (used[device] + block_bytes) / max(1, room[device]))
        counts[emptiest] += 1
        used[emptiest] += block_bytes
    if any(used[device] > room[device] for device in room):
        return None
    first = next(iter(room))
    kept = [device for device in room if counts[device] or device == first]
    return Placement({device: counts[device] for device in kept}, {device: used[device] for device in kept})


def device_map(model: nn.Module, placement: Placement) -> dict[str, Any]:
    """The `device_map` of `from_pretrained`: the name of each block, and of each other module with weights, to its device.

    Args:
        model: of the same architecture; it may be without weights.

    Raises:
        UsageError: its blocks cannot be told apart.
    """
    blocks = decoder_blocks(model)[2]
    names = {module: name for name, module in model.named_modules()}
    path, first = names[blocks], next(iter(placement.blocks))
    places: dict[str, Any] = {}
    for name, _ in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]:
        if not name.startswith(f"{path}."):
            places[name.rpartition(".")[0] or name] = first
    devices = [device for device, count in placement.blocks.items() for _ in range(count)]
    return places | {f"{path}.{index}": device for index, device in enumerate(devices)}


def is_spread(model: nn.Module) -> bool:
    """Whether a model lies on several devices, so that nobody may move it."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1
