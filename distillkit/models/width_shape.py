"""What a narrower model of the same architecture looks like: which sizes can be had, and how its configuration says them.

Sizes are asked for as shares or counts (`ffn=0.5`, `heads=2`); shares are rounded to what computes well and what the
architecture allows, counts are kept or refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distillkit.errors import UsageError
from distillkit.models.references import WidthCut
from distillkit.silence_libraries import silence_transformers

# What a dimension of a weight counts. "query": numbers of the query heads; "key": of the key or value heads; "fused":
# of queries, keys and values one after another; "whole": nothing that is cut.
Axis = Literal["hidden", "ffn", "query", "key", "fused", "whole"]

_MULTIPLE = 8  # Matrix products are fast where sizes are multiples of this; smaller models need no such care.
_SMALLEST_ROUNDED = 64


@dataclass(frozen=True)
class Family:
    """Architectures that lie alike.

    Attributes:
        names: what the settings are called that say a size: of "ffn", "heads", "groups" and "hidden".
        head_size: the setting for numbers in a head; None: always `hidden` / `heads`.
        blocks: the list of decoder blocks.
        ffn_input, heads_input: the layers of a block that read the neurons and the heads.
        norms: the norms of a block.
        final_norm: the norm after the last block.
        axes: by the end of a weight's name, what its dimensions count.
    """

    names: Mapping[str, str]
    head_size: str | None
    blocks: str
    ffn_input: str
    heads_input: str
    norms: tuple[str, ...]
    final_norm: str
    axes: Mapping[str, tuple[Axis, ...]]


_LLAMA = Family(
    names={
        "ffn": "intermediate_size", "heads": "num_attention_heads", "groups": "num_key_value_heads",
        "hidden": "hidden_size",
    },
    head_size="head_dim",
    blocks="model.layers",
    ffn_input="mlp.down_proj",
    heads_input="self_attn.o_proj",
    norms=("input_layernorm", "post_attention_layernorm"),
    final_norm="model.norm",
    axes={
        "embed_tokens.weight": ("whole", "hidden"),
        "lm_head.weight": ("whole", "hidden"),
        "norm.weight": ("hidden",),
        "input_layernorm.weight": ("hidden",),
        "post_attention_layernorm.weight": ("hidden",),
        "q_proj.weight": ("query", "hidden"),
        "q_proj.bias": ("query",),
        "k_proj.weight": ("key", "hidden"),
        "k_proj.bias": ("key",),
        "v_proj.weight": ("key", "hidden"),
        "v_proj.bias": ("key",),
        "o_proj.weight": ("hidden", "query"),
        "o_proj.bias": ("hidden",),
        "q_norm.weight": ("whole",),
        "k_norm.weight": ("whole",),
        "gate_proj.weight": ("ffn", "hidden"),
        "gate_proj.bias": ("ffn",),
        "up_proj.weight": ("ffn", "hidden"),
        "up_proj.bias": ("ffn",),
        "down_proj.weight": ("hidden", "ffn"),
        "down_proj.bias": ("hidden",),
    },
)  # fmt: skip
# Its Conv1D keeps weights as [input, output].
_GPT2 = Family(
    names={"ffn": "n_inner", "heads": "n_head", "groups": "n_head", "hidden": "n_embd"},
    head_size=None,
    blocks="transformer.h",
    ffn_input="mlp.c_proj",
    heads_input="attn.c_proj",
    norms=("ln_1", "ln_2"),
    final_norm="transformer.ln_f",
    axes={
        "wte.weight": ("whole", "hidden"),
        "wpe.weight": ("whole", "hidden"),
        "lm_head.weight": ("whole", "hidden"),
        "ln_1.weight": ("hidden",),
        "ln_1.bias": ("hidden",),
        "ln_2.weight": ("hidden",),
        "ln_2.bias": ("hidden",),
        "ln_f.weight": ("hidden",),
        "ln_f.bias": ("hidden",),
        "attn.c_attn.weight": ("hidden", "fused"),
        "attn.c_attn.bias": ("fused",),
        "attn.c_proj.weight": ("query", "hidden"),
        "attn.c_proj.bias": ("hidden",),
        "mlp.c_fc.weight": ("hidden", "ffn"),
        "mlp.c_fc.bias": ("ffn",),
        "mlp.c_proj.weight": ("ffn", "hidden"),
        "mlp.c_proj.bias": ("hidden",),
    },
)
FAMILIES: dict[str, Family] = {
    "llama": _LLAMA, "mistral": _LLAMA, "qwen2": _LLAMA, "qwen3": _LLAMA, "smollm3": _LLAMA, "gpt2": _GPT2,
}  # fmt: skip
# Their configurations refuse a hidden size that the query heads do not divide, although the size of a head is given.
_DIVIDED_BY_HEADS = ("llama",)


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model that can be cut.

    Attributes:
        ffn: neurons of each feed-forward layer.
        groups: key/value heads, each with its query heads.
        hidden: numbers in a hidden state.
        queries: query heads of a group.
        head: numbers in a head.
    """

    ffn: int
    groups: int
    hidden: int
    queries: int
    head: int

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.groups * self.queries


def family_of(config: Any) -> Family:
    """The family of a transformers configuration.

    Raises:
        UsageError: its width cannot be cut.
    """
    kind = getattr(config, "model_type", None)
    if kind not in FAMILIES:
        raise _unknown(kind)
    return FAMILIES[kind]


def sizes_of(config: Any) -> Sizes:
    """The sizes that a transformers configuration says.

    Raises:
        UsageError: its width cannot be cut.
    """
    family = family_of(config)
    hidden, heads, groups, ffn = (getattr(config, family.names[name]) for name in ("hidden", "heads", "groups", "ffn"))
    head = getattr(config, family.head_size, None) if family.head_size else None
    return Sizes(
        ffn=4 * hidden if ffn is None else ffn,  # As GPT-2 reads it.
        groups=groups,
        hidden=hidden,
        queries=heads // groups,
        head=hidden // heads if head is None else head,
    )


def narrowed_sizes(config: Any, width: WidthCut) -> Sizes:
    """What of a model's sizes is left.

    Args:
        config: a transformers configuration.

    Raises:
        UsageError: more than there is, or a combination that the architecture's configuration cannot say.
    """
    whole = sizes_of(config)
    ffn = _kept("ffn", width.ffn, whole.ffn, _multiple(whole.ffn))
    if FAMILIES[config.model_type].head_size is None:
        groups, hidden = _tied_to_heads(whole, width)
    else:
        groups = _kept("heads", width.heads, whole.groups, 1, whole.queries)
        divisor = groups * whole.queries if config.model_type in _DIVIDED_BY_HEADS else 1
        hidden = _divided(whole, width, groups, divisor)
    return Sizes(ffn, groups, hidden, whole.queries, whole.head)


def narrowed_values(config: Any, width: WidthCut) -> dict[str, int]:
    """The settings of a narrower model, by their names in its configuration.

    Args:
        config: a transformers configuration.

    Raises:
        UsageError: as `narrowed_sizes`.
    """
    left, family = narrowed_sizes(config, width), family_of(config)
    values = {
        family.names["ffn"]: left.ffn,
        family.names["groups"]: left.groups,
        family.names["heads"]: left.heads,
        family.names["hidden"]: left.hidden,
    }
    # Said, because it would otherwise be derived from the new width.
    return values | ({family.head_size: left.head} if family.head_size else {})


def narrowed_config(config: dict[str, Any], width: WidthCut) -> dict[str, Any]:
    """The content of a config.json for the narrower model; `model_shape` tells its parameters. No weights are read.

    Args:
        config: the content of the model's config.json.

    Raises:
        UsageError: as `narrowed_sizes`.
    """
    from transformers import AutoConfig

    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise _unknown(kind)
    with silence_transformers():
        read: Any = AutoConfig.for_model(
            kind, **{name: value for name, value in config.items() if name != "model_type"}
        )
    values = narrowed_values(read, width)
    # Another name of a setting would contradict it.
    aliases = {alias for alias, real in read.attribute_map.items() if real in values}
    return {name: value for name, value in config.items() if name not in aliases} | values


def _multiple(total: int) -> int:
    return _MULTIPLE if total >= _SMALLEST_ROUNDED else 1


def _kept(name: str, wanted: float | None, total: int, multiple: int, queries: int = 1) -> int:
    """A share rounded to the nearest multiple, at least one; a count as it is."""
    if wanted is None or wanted == 1:
        return total
    if wanted < 1:
        return multiple * min(total // multiple, max(1, math.floor(wanted * total / multiple + 0.5)))
    if wanted > total:
        groups = f"key/value groups, each with its {queries} query heads" if queries > 1 else "attention heads"
        what = {"ffn": "neurons in each layer", "heads": groups, "hidden": "numbers in a hidden state"}[name]
        raise UsageError(
            f"the teacher has {total} {what}, so {name}={wanted:g} cannot be kept",
            hint=f"use at most {name}={total}, or a share such as {name}=0.5",
        )
    return int(wanted)


def _divided(whole: Sizes, width: WidthCut, groups: int, divisor: int) -> int:
    """The hidden size, a multiple of the query heads where the architecture wants that."""
    multiple = math.lcm(_multiple(whole.hidden), divisor)
    rounded = multiple if multiple <= whole.hidden else divisor
    hidden = _kept("hidden", width.hidden, whole.hidden, rounded)
    if hidden % divisor == 0:
        return hidden
    near = max(1, math.floor(hidden / divisor + 0.5))
    choices = [count * divisor for count in (near, near - 1) if 0 < count * divisor <= whole.hidden]
    others = [count for count in range(1, whole.groups + 1) if hidden % (count * whole.queries) == 0]
    hints = [f"{_heads(groups, whole)},hidden={choices[0]}"] if choices else []
    if others:
        hints.append(f"{_heads(min(others, key=lambda count: abs(count - groups)), whole)},hidden={hidden}")
    raise UsageError(
        f"a hidden size of {hidden} cannot be divided among {divisor} query heads, which this architecture wants",
        hint=f"use {' or '.join(hints)}",
    )


def _tied_to_heads(whole: Sizes, width: WidthCut) -> tuple[int, int]:
    """(heads, hidden size) where the heads together are as wide as a hidden state."""
    hidden = _kept("hidden", width.hidden, whole.hidden, whole.head)
    near = max(1, math.floor(hidden / whole.head + 0.5))
    heads = near if width.heads is None else _kept("heads", width.heads, whole.groups, 1)
    if heads * whole.head == hidden:
        return heads, hidden
    # Heads alone were named: the hidden size has to follow.
    if width.hidden is None:
        near = heads
    raise UsageError(
        f"{heads} heads of {whole.head} numbers do not make a hidden size of {hidden}, which this architecture wants",
        hint=f"use {_heads(near, whole)},hidden={near * whole.head}",
    )


def _heads(count: int, whole: Sizes) -> str:
    """As a user has to write it: 1 would be all of them."""
    return f"heads={count}" if count > 1 or whole.groups == 1 else f"heads={1 / whole.groups:.4f}"


def _unknown(kind: Any) -> UsageError:
    return UsageError(
        f"the width of a model of the kind {kind} cannot be cut",
        hint=f"keep some layers alone (teacher:N); ffn=, heads= and hidden= work for {', '.join(FAMILIES)}",
    )
