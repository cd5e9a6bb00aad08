"""Whether two layers are of the same kind: the same modules, shapes and settings, whatever their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# What torch keeps of every module, and what says nothing of what a module computes.
_OF_TORCH = frozenset(vars(nn.Module())) | {"config"}


@dataclass(frozen=True)
class Place:
    """Which layer of how many."""

    number: int
    total: int


def difference(layer: nn.Module, other: nn.Module, place: Place, other_place: Place) -> str | None:
    """What tells two layers apart, as a clause about the second; None if they are of one kind.

    A factor that depends on the depth is no kind: see `scalings`.

    Args:
        place, other_place: which layers of their models they are; settings that say so are not compared.
    """
    modules, others = dict(layer.named_modules()), dict(other.named_modules())
    if modules.keys() != others.keys():
        name = min(modules.keys() ^ others.keys())
        return f"{name} is {'missing' if name in modules else 'added'}"
    for name, module in modules.items():
        if type(module) is not type(others[name]):
            return f"{name or 'it'} is a {type(others[name]).__name__} instead of a {type(module).__name__}"
        shapes = [
            {key: tuple(value.shape) for key, value in each.state_dict().items()} for each in (module, others[name])
        ]
        if shapes[0] != shapes[1]:
            key = next(key for key in {**shapes[0], **shapes[1]} if shapes[0].get(key) != shapes[1].get(key))
            return f"{name}.{key} has the shape {shapes[1].get(key)} instead of {shapes[0].get(key)}"
        for key, value, found in _settings(module, others[name]):
            scaled = isinstance(value, float) and isinstance(found, float)
            if value != found and not scaled and not _tells_the_place(value, found, place, other_place):
                return f"{f'{name}.' if name else ''}{key} is {found} instead of {value}"
    return None


def _tells_the_place(value: Any, found: Any, place: Place, other_place: Place) -> bool:
    """Whether a setting is the layer's number, the number of layers, or a list with an entry for each of them."""
    if isinstance(value, bool):
        return False
    if isinstance(value, (list, tuple)) and isinstance(found, (list, tuple)):
        lengths = (len(value), len(found)) == (place.total, other_place.total)
        return lengths and value[place.number] == found[other_place.number]
    return (value, found) in ((place.number, other_place.number), (place.total, other_place.total))


def scalings(layers: nn.ModuleList, others: nn.ModuleList, kept: Sequence[int]) -> Iterator[str]:
    """What layers scale by their depth, where that changes with their number: a line for each such factor.

    Args:
        layers: of the larger model, of which `others` are those of the numbers `kept`.
    """
    told: set[str] = set()
    for place, index in enumerate(kept):
        for name, module in layers[index].named_modules():
            for key, value, found in _settings(module, others[place].get_submodule(name)):
                if isinstance(value, float) and isinstance(found, float) and value != found and key not in told:
                    told.add(key)
                    yield (
                        f"{key} depends on a layer's number: layer {index}, now number {place}, "
                        f"has {found:.4g} instead of {value:.4g}"
                    )


def _settings(module: nn.Module, other: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """(name, value, the other's value) of the settings that both have or only one has."""
    own, others = vars(module), vars(other)
    for key in sorted((own.keys() | others.keys()) - _OF_TORCH):
        value, found = own.get(key), others.get(key)
        if _is_plain(value) and _is_plain(found):
            yield key, value, found


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, (bool, int, float, str, torch.dtype))
