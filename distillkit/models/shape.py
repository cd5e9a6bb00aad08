"""What a configuration says of a model: its size, its layers, and whether its head is a plain layer. No weights are read."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.errors import UsageError
from distillkit.models.cut_config import LAYER_COUNT_NAMES, UnsavableLayersError, cut_values
from distillkit.models.lora import projections, widths
from distillkit.models.plain_folder import plain_config
from distillkit.silence_libraries import silence_transformers


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of a causal language model.

    Attributes:
        config: the content of config.json.
        parameters: all of them, tied ones once.
        layers: decoder blocks.
        vocabulary: columns of the head.
        width: D, numbers in a hidden state that the head reads.
        inner_width: d, numbers per token between blocks.
        head_is_plain: whether the logits are a linear layer on the last hidden states and nothing more (soft caps, scales,
            projections); None where that cannot be told without the weights.
        full_config: config.json with what its class fills in.
        positions: tokens that the table of learned positions has rows for; None for a model without one.
        adapter_widths: in + out of all layers beside which an adapter has its matrices (`models.lora`), summed.
        embedding: rows of the input embedding, and its name among the weights; None where the model does not show it.
    """

    config: dict[str, Any]
    parameters: int
    layers: int
    vocabulary: int
    width: int
    inner_width: int
    head_is_plain: bool | None
    full_config: dict[str, Any] = field(default_factory=dict)
    positions: int | None = None
    embedding: tuple[int, str] | None = None
    adapter_widths: int = 0

    @property
    def embedded(self) -> int:
        """Numbers of the input embedding."""
        rows = self.embedding[0] if self.embedding is not None else self.vocabulary
        return min(self.parameters, rows * self.inner_width)

    @property
    def outside(self) -> int:
        """Numbers of the input embedding, and of the head where that is no view of it: what no block has."""
        tied = self.full_config.get("tie_word_embeddings", self.config.get("tie_word_embeddings", True))
        return min(self.parameters, self.embedded + (0 if tied else self.vocabulary * self.width))

    def with_layers(self, layers: int | Sequence[int]) -> ModelShape | None:
        """The shape with only so many decoder blocks; None where one layer's size cannot be told."""
        names = [name for name in LAYER_COUNT_NAMES if isinstance(self.config.get(name), int)]
        if not names or self.layers < 2:
            return None
        one = model_shape(with_fewer_layers(self.config, 1))
        if one is None:
            return None
        kept = layers if isinstance(layers, int) else len(layers)
        each = (self.parameters - one.parameters) / (self.layers - 1)
        return replace(
            self, parameters=round(one.parameters + (kept - 1) * each), layers=kept,
            adapter_widths=round(self.adapter_widths * kept / self.layers),
        )  # fmt: skip


def with_fewer_layers(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The content of a config.json for the same model with its first `layers` decoder blocks."""
    kept = list(range(layers))
    try:
        changed = cut_values(config, kept)
    except UnsavableLayersError:  # The first layers lie in every rhythm as they did.
        changed = {name: layers for name in LAYER_COUNT_NAMES if isinstance(config.get(name), int)}
    return {**config, **changed}


def model_shape(config: dict[str, Any]) -> ModelShape | None:
    """The shape that a config.json describes; None where this transformers cannot build it (an architecture that it does
    not know, or one that brings its own code)."""
    if not isinstance(config.get("model_type"), str) or "auto_map" in config:
        return None
    return _shape_of(json.dumps(plain_config(config), sort_keys=True))


@functools.cache
def _shape_of(text: str) -> ModelShape | None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config: dict[str, Any] = json.loads(text)
    values = {name: value for name, value in config.items() if name not in ("model_type", "quantization_config")}
    try:
        with silence_transformers(), torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **values))
    except Exception:
        # A configuration may be wrong in any way: loading the model says how.
        return None
    head = model.get_output_embeddings()
    columns, width = head.weight.shape if head is not None else (0, 0)
    text_config = model.config.get_text_config()
    counts = [getattr(text_config, name, None) for name in LAYER_COUNT_NAMES]
    return ModelShape(
        config=config,
        parameters=sum(weights.numel() for weights in model.parameters()),
        layers=next((count for count in counts if isinstance(count, int)), 1),
        vocabulary=int(columns),
        width=int(width),
        inner_width=int(getattr(text_config, "hidden_size", width)),
        full_config=model.config.to_dict(),
        positions=_positions(model),
        embedding=_embedding(model),
        adapter_widths=_adapter_widths(model),
        head_is_plain=_head_is_plain(model),  # Last: it replaces the backbone's forward.
    )


def _positions(model: nn.Module) -> int | None:
    """Tokens for which the tables of positions have rows.

    A table with a padding id begins behind it (RoBERTa: fairseq counts positions from padding_idx + 1), one with an
    `offset` (OPT, BART) has so many rows more.
    """
    rows = []
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if any(other in name for other in ("vision", "visual", "image", "audio", "encoder.embed", "relative")):
            continue
        if isinstance(module, nn.Embedding) and ("position" in last or last in ("wpe", "pos_emb", "pos_embed")):
            begin = 0 if module.padding_idx is None else module.padding_idx + 1
            offset = getattr(module, "offset", 0)
            rows.append(module.num_embeddings - max(begin, offset if isinstance(offset, int) else 0))
        # Frequencies that are computed once, for so many positions (GPT-J, CodeGen).
        rows += [
            int(table.shape[0]) for buffer, table in module.named_buffers(recurse=False) if buffer == "embed_positions"
        ]
    return min((count for count in rows if count > 0), default=None)


def _adapter_widths(model: nn.Module) -> int:
    try:
        return sum(map(widths, projections(model).values()))
    except UsageError:  # Its blocks cannot be told apart: it cannot have an adapter.
        return 0


def _embedding(model: Any) -> tuple[int, str] | None:
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):
        return None
    name = next((name for name, value in model.named_parameters() if value is weight), None)
    return None if name is None else (int(weight.shape[0]), name)


class _BackboneOutput:
    """Stands in for whatever a backbone returns: last hidden states, and nothing else."""

    def __init__(self, last_hidden_state: Tensor) -> None:
        self.last_hidden_state = last_hidden_state

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, place: Any) -> Any:
        return self.last_hidden_state if place == 0 else ()


def _head_is_plain(model: Any) -> bool | None:
    """Follow made-up hidden states through the head: its input must be they, its output the logits.

    The backbone does not run, so neither memory nor time depends on its size.
    """
    head, backbone = model.get_output_embeddings(), model.base_model
    if not isinstance(head, nn.Linear) or backbone is model:
        return False
    last = torch.empty(1, 2, head.in_features, dtype=head.weight.dtype, device="meta")
    for module in {backbone, model.get_decoder()}:  # OPT's model calls the inner one.
        module.forward = lambda *_, **__: _BackboneOutput(last)
    calls: list[tuple[Tensor, Tensor]] = []

    def note(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((inputs[0], output))

    head.register_forward_hook(note)
    try:
        with torch.no_grad():
            ids = torch.zeros(1, 2, dtype=torch.long, device="meta")
            logits = model.eval()(input_ids=ids, use_cache=False).logits
    except Exception:
        # The code around a head may ask a backbone's answer for anything: then it takes the real model to know.
        return None
    if len(calls) != 1:
        return False
    (read, written) = calls[0]
    same_input = read.shape == last.shape and read.untyped_storage()._cdata == last.untyped_storage()._cdata
    return bool(same_input and logits is written)
