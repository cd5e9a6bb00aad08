"""A student with some of the teacher's neurons, heads and hidden columns: those that do most on a few texts.

After Minitron (Muralidharan et al. 2024, arXiv 2407.14679), whose importance is in `width_importance`; the factors of the
norms are this project's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.errors import UsageError
from distillkit.models.empty_model import empty_copy
from distillkit.models.pruning import give_weights, read_again
from distillkit.models.references import WidthCut
from distillkit.models.width_importance import Importance, measure_importance, norm_scales
from distillkit.models.width_shape import Axis, Family, Sizes, family_of, narrowed_values, sizes_of


@dataclass(frozen=True)
class Narrowed:
    """A narrower model.

    Attributes:
        model: independent of the one that it was made from.
        hidden_columns: [d] ascending, of the hidden columns that are left; None: all.
        record: what was cut and why, for the manifest: `sizes` and `parameters` [before, after], `texts` and `tokens` that
            were read, `kept_importance` (what is left of the sum of the scores, each layer's or the hidden columns'),
            `kept_groups` by layer, `norm_scales` [least, greatest].
    """

    model: nn.Module
    hidden_columns: Tensor | None
    record: dict[str, Any]


@dataclass(frozen=True)
class _Kept:
    """Which are left, ascending; None: all."""

    ffn: Tensor | None  # [L, f]
    groups: Tensor | None  # [L, g]
    hidden: Tensor | None  # [d]


def narrow(model: nn.Module, width: WidthCut, texts: Sequence[Tensor]) -> Narrowed:
    """A narrower model of the same architecture, which saves and loads like any other; `model` stays as it is.

    It is built from the configuration that will be saved with it. The texts are read once to choose what is left, and once
    more for the factors of the norms where hidden columns are cut.

    Args:
        model: of a family in `width_shape.FAMILIES`.
        texts: token ids [B, T] without padding, each row a text; a few thousand tokens.

    Raises:
        UsageError: another architecture, more than there is, or a combination that no configuration can describe.
        ValueError: there is no token to measure on.
    """
    config: Any = model.config
    family, before = family_of(config), sizes_of(config)
    values = narrowed_values(config, width)
    changed = copy.deepcopy(config)
    for name, value in values.items():
        setattr(changed, name, value)
    after = sizes_of(changed)
    _refuse_unknown_weights(model, family)
    tokens = sum(text.numel() for text in texts)
    if not tokens:
        raise ValueError("a model is narrowed by what it does on texts, and there is none")

    importance = measure_importance(model, texts, family, before)
    kept = _choose(importance, before, after)
    scales = {} if kept.hidden is None else norm_scales(model, texts, family, kept.hidden)
    student: Any = empty_copy(model, read_again(changed))
    give_weights(student, _sliced(model, family, before, kept, scales), model)
    record: dict[str, Any] = {
        "sizes": {
            "ffn": [before.ffn, after.ffn], "heads": [before.groups, after.groups],
            "hidden": [before.hidden, after.hidden],
        },
        "parameters": [sum(weights.numel() for weights in each.parameters()) for each in (model, student)],
        "texts": sum(len(text) for text in texts),
        "tokens": tokens,
        "kept_importance": _kept_importance(importance, kept),
        "kept_groups": None if kept.groups is None else kept.groups.tolist(),
        "norm_scales": [min(scales.values()), max(scales.values())] if scales else None,
    }  # fmt: skip
    return Narrowed(student, kept.hidden, record)


def _refuse_unknown_weights(model: nn.Module, family: Family) -> None:
    if strange := [name for name in model.state_dict() if _axes(name, family) is None]:
        raise UsageError(
            f"{type(model).__name__} has weights of which it is not known how to narrow them: {strange[0]}",
            hint="keep some layers alone (teacher:N)",
        )


def _axes(name: str, family: Family) -> tuple[Axis, ...] | None:
    """What the dimensions of a weight count. GPT-2 calls two layers of a block alike: the layer above tells them apart."""
    parts = name.split(".")
    return family.axes.get(".".join(parts[-2:])) or family.axes.get(".".join(parts[-3:]))


def _choose(importance: Importance, before: Sizes, after: Sizes) -> _Kept:
    return _Kept(
        _most(importance.ffn, after.ffn) if after.ffn < before.ffn else None,
        _most(importance.groups, after.groups) if after.groups < before.groups else None,
        _most(importance.hidden, after.hidden) if after.hidden < before.hidden else None,
    )


def _most(scores: Tensor, count: int) -> Tensor:
    """[…, count] the places of the highest scores, ascending; of equal ones the first."""
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :count].sort(dim=-1).values


def _kept_importance(importance: Importance, kept: _Kept) -> dict[str, Any]:
    found = {}
    for name in ("ffn", "groups", "hidden"):
        scores, left = getattr(importance, name), getattr(kept, name)
        if left is not None:
            shares = scores.gather(-1, left).sum(-1) / scores.sum(-1)
            found["heads" if name == "groups" else name] = [round(share, 4) for share in shares.reshape(-1).tolist()]
    return found


def _sliced(model: nn.Module, family: Family, sizes: Sizes, kept: _Kept, scales: dict[str, float]) -> dict[str, Tensor]:
    """Copies of what is left of the weights, by name; what is tied is one tensor in the copy too."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    state = {}
    for name, weights in model.state_dict().items():
        key = (weights.data_ptr(), weights.shape, weights.stride())
        if key not in copies:
            copies[key] = _left_of(name, weights, family, sizes, kept)
            norm, _, kind = name.rpartition(".")
            if kind == "weight" and norm in scales:
                copies[key] *= scales[norm]
        state[name] = copies[key]
    return state


def _left_of(name: str, weights: Tensor, family: Family, sizes: Sizes, kept: _Kept) -> Tensor:
    axes = _axes(name, family)
    assert axes is not None  # _refuse_unknown_weights
    inner = name.removeprefix(f"{family.blocks}.")
    layer = int(inner.split(".")[0]) if inner != name else 0
    left = weights.clone(memory_format=torch.contiguous_format)
    for dimension, axis in enumerate(axes):
        places = _places(axis, layer, sizes, kept)
        if places is not None:
            left = left.index_select(dimension, places.to(left.device))
    return left


def _places(axis: Axis, layer: int, sizes: Sizes, kept: _Kept) -> Tensor | None:
    """The numbers of a dimension that are left; None: all."""
    if axis == "hidden":
        return kept.hidden
    if axis == "ffn":
        return None if kept.ffn is None else kept.ffn[layer]
    if axis == "whole" or kept.groups is None:
        return None
    each = sizes.head if axis == "key" else sizes.queries * sizes.head
    places = (kept.groups[layer, :, None] * each + torch.arange(each)).flatten()
    if axis == "fused":
        return torch.cat([places + part * sizes.heads * sizes.head for part in range(3)])
    return places
