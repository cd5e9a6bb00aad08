"""The configuration of a model with some of its layers: what it says of each layer follows the layer.

Configurations say so in lists with an entry for each layer, in lists of the numbers of some layers, in counts of the
first or the last ones, and in rhythms (every so manieth). Lists and counts can follow any choice of layers, rhythms only
some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

LAYER_COUNT_NAMES = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers")
# As long as there are layers by chance only.
_NOT_PER_LAYER = ("architectures", "keys_to_ignore_at_inference", "attention_types")
# Lists of the numbers of some layers.
_NUMBERED = (
    "mlp_only_layers", "moe_layers", "full_attn_idxs", "attn_layer_indices", "hybrid_layer_ids", "local_layer_ids",
    "global_attn_layers", "attention_layers_idx", "layers_to_transform",
)  # fmt: skip
_FIRST = ("first_k_dense_replace", "num_dense_layers", "dense_mlp_idx")
_LAST = ("num_kv_shared_layers",)
# A few kinds that are repeated until there are as many as layers.
_CYCLES = ("block_types",)


class UnsavableLayersError(Exception):
    """A configuration has no way to say what the layers are that were chosen."""


def cut_values(values: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """What of a configuration is another value when only some layers are kept.

    Args:
        values: the settings of the text model.
        kept: the numbers of the layers, ascending.

    Raises:
        UnsavableLayersError: a rhythm does not fit them.
    """
    total = next((values[name] for name in LAYER_COUNT_NAMES if _is_number(values.get(name))), 0)
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if name in _CYCLES and isinstance(value, list) and value:
            changed[name] = [value[index % len(value)] for index in kept]
        elif name in _NUMBERED and isinstance(value, list):
            changed[name] = [place for place, index in enumerate(kept) if index in value]
        elif _is_per_layer(name, value, total):
            changed[name] = [value[index] for index in kept]
        elif name in LAYER_COUNT_NAMES and value == total:
            changed[name] = len(kept)
        elif name in _FIRST and _is_number(value):
            changed[name] = sum(index < value for index in kept)
        elif name in _LAST and _is_number(value) and value > 0:
            changed[name] = sum(index >= total - value for index in kept)
        elif name == "per_layer_config" and isinstance(value, dict):
            changed[name] = {place: value[index] for place, index in enumerate(kept) if index in value}
        elif name == "hybrid_override_pattern" and isinstance(value, str) and len(value) == total:
            changed[name] = "".join(value[index] for index in kept)
    if isinstance(kinds := values.get("attention_types"), list):
        # GPT-Neo writes its list of layer kinds as [[[kind, …], repetitions], …] and checks one against the other.
        each = [kind for group, repetitions in kinds for _ in range(repetitions) for kind in group]
        changed["attention_types"] = [[[each[index]], 1] for index in kept]
    return changed | _rhythms(values, kept, changed)


def _is_number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_per_layer(name: str, value: Any, total: int) -> bool:
    ordinary = not name.endswith("_token_id") and name not in _NOT_PER_LAYER
    return ordinary and isinstance(value, list) and len(value) == total


def _rhythms(values: Mapping[str, Any], kept: Sequence[int], changed: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    count = len(kept)
    for name, period in values.items():
        partner = name.removesuffix("_period") + "_offset"
        if name.endswith("_layer_period") and _is_number(period) and _is_number(offset := values.get(partner)):
            wanted = [place for place, index in enumerate(kept) if index % period == offset]
            if wanted != [place for place in range(count) if place % period == offset]:
                found[name], found[partner] = _period(name, wanted, count)
    step, dense = values.get("decoder_sparse_step"), values.get("mlp_only_layers")
    if _is_number(step) and step > 1 and isinstance(dense, list):
        # Every so manieth layer has experts, but for those that are listed.
        wanted = [place for place, index in enumerate(kept) if (index + 1) % step or index in dense]
        if wanted != [place for place in range(count) if (place + 1) % step or place in changed["mlp_only_layers"]]:
            found |= {"decoder_sparse_step": 1, "mlp_only_layers": wanted}
    interval, start, end = (values.get(f"moe_layer_{name}") for name in ("interval", "start_index", "end_index"))
    if _is_number(interval) and _is_number(start) and _is_number(end):
        last = end if end >= 0 else 10**9
        wanted = [place for place, index in enumerate(kept) if (index + 1) % interval == 0 and start <= index <= last]
        found |= _interval(wanted, count)
    return found


def _period(name: str, wanted: list[int], count: int) -> tuple[int, int]:
    """(period, offset) of which exactly the places that are wanted are."""
    if not wanted:
        return count + 1, count
    for period in range(1, count + 2):
        offset = wanted[0] % period
        if wanted == [place for place in range(count) if place % period == offset]:
            return period, offset
    raise UnsavableLayersError(f"{name} counts in even steps, and these layers do not lie so")


def _interval(wanted: list[int], count: int) -> dict[str, int]:
    names = ("moe_layer_interval", "moe_layer_start_index", "moe_layer_end_index")
    if not wanted:
        return dict(zip(names, (1, count, count), strict=True))
    for interval in range(1, count + 1):
        if wanted == [place for place in range(wanted[0], wanted[-1] + 1) if (place + 1) % interval == 0]:
            return dict(zip(names, (interval, wanted[0], wanted[-1]), strict=True))
    raise UnsavableLayersError("moe_layer_interval counts in even steps, and these layers do not lie so")
