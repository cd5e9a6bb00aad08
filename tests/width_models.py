"""Tiny models of every family whose width can be cut, all of whose weights are random, and their plain forward passes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

LAYERS, HIDDEN, FFN, HEAD = 3, 32, 48, 8

_SMALL: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-9,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "llama": {**_SMALL, "model_type": "llama"},
    "llama tied, with biases": {
        **_SMALL, "model_type": "llama", "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True,
    },
    "llama, every head its own": {**_SMALL, "model_type": "llama", "num_key_value_heads": 4},
    "mistral, wide heads": {**_SMALL, "model_type": "mistral", "head_dim": 12},
    "qwen2": {**_SMALL, "model_type": "qwen2"},
    "qwen2 tied": {**_SMALL, "model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {**_SMALL, "model_type": "qwen3", "head_dim": 16},
    "smollm3": {**_SMALL, "model_type": "smollm3"},
    "gpt2": {
        "model_type": "gpt2", "vocab_size": 60, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": 64,
        "layer_norm_epsilon": 1e-9, "bos_token_id": None, "eos_token_id": None,
    },
    "gpt2 untied": {
        "model_type": "gpt2", "vocab_size": 60, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": 64,
        "n_inner": FFN, "layer_norm_epsilon": 1e-9, "tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": None,
    },
}  # fmt: skip


def width_model(kind: str, seed: int = 0, **changed: Any) -> Any:
    """A model in evaluation mode, all of whose weights are random: norms and biases too."""
    settings = {**KINDS[kind], **changed}
    config = AutoConfig.for_model(settings["model_type"], **{k: v for k, v in settings.items() if k != "model_type"})
    model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, weights in model.named_parameters():
        drawn = torch.randn(weights.shape, generator=generator)
        weights.data = 1 + 0.3 * drawn if "norm" in name or ("ln_" in name and name.endswith("weight")) else 0.3 * drawn
    model.tie_weights()
    return model


@dataclass
class Trace:
    """What a forward pass comes by, each list one entry per layer or norm.

    Attributes:
        neurons: [T, F] what the down-projection reads.
        heads: [T, H, d] of each query head, before the output projection.
        norms_in, norms_out: [T, D] of each norm, in the order in which they compute.
        logits: [T, V].
    """

    neurons: list[Tensor] = field(default_factory=list)
    heads: list[Tensor] = field(default_factory=list)
    norms_in: list[Tensor] = field(default_factory=list)
    norms_out: list[Tensor] = field(default_factory=list)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))


def read_naively(model: Any, ids: Tensor) -> Trace:
    """The forward pass of one text [T] in float64, written out."""
    weights = {name: value.double() for name, value in model.state_dict().items()}
    return (_gpt2 if model.config.model_type == "gpt2" else _llama)(weights, model.config, ids)


def _attend(query_THd: Tensor, key_THd: Tensor, value_THd: Tensor) -> Tensor:
    tokens, heads, width = query_THd.shape
    out = torch.zeros_like(query_THd)
    for head in range(heads):
        for now in range(tokens):
            scores = key_THd[: now + 1, head] @ query_THd[now, head] / math.sqrt(width)
            out[now, head] = torch.softmax(scores, 0) @ value_THd[: now + 1, head]
    return out


def _llama(weights: dict[str, Tensor], config: Any, ids: Tensor) -> Trace:
    trace = Trace()
    tokens, heads, groups = len(ids), config.num_attention_heads, config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    base = config.rope_parameters["rope_theta"]

    def linear(name: str, states: Tensor) -> Tensor:
        return states @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(()))

    def norm(name: str, states: Tensor) -> Tensor:
        size = (states.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt()
        return states / size * weights[f"{name}.weight"]

    def noted(name: str, states: Tensor) -> Tensor:
        trace.norms_in.append(states)
        trace.norms_out.append(norm(name, states))
        return trace.norms_out[-1]

    def turned(states_THd: Tensor) -> Tensor:
        left, right = states_THd.chunk(2, dim=-1)
        angles = torch.arange(tokens)[:, None, None] / base ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)

    states = weights["model.embed_tokens.weight"][ids]
    for layer in range(config.num_hidden_layers):
        block = f"model.layers.{layer}"
        read = noted(f"{block}.input_layernorm", states)
        query, key, value = (
            linear(f"{block}.self_attn.{kind}_proj", read).view(tokens, -1, width) for kind in ("q", "k", "v")
        )
        if f"{block}.self_attn.q_norm.weight" in weights:
            query, key = norm(f"{block}.self_attn.q_norm", query), norm(f"{block}.self_attn.k_norm", key)
        if getattr(config, "no_rope_layers", [1] * 99)[layer]:
            query, key = turned(query), turned(key)
        owners = [head // (heads // groups) for head in range(heads)]
        trace.heads.append(_attend(query, key[:, owners], value[:, owners]))
        states = states + linear(f"{block}.self_attn.o_proj", trace.heads[-1].flatten(1))
        read = noted(f"{block}.post_attention_layernorm", states)
        gate = linear(f"{block}.mlp.gate_proj", read)
        trace.neurons.append(gate * torch.sigmoid(gate) * linear(f"{block}.mlp.up_proj", read))
        states = states + linear(f"{block}.mlp.down_proj", trace.neurons[-1])
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    trace.logits = noted("model.norm", states) @ head.T
    return trace


def _gpt2(weights: dict[str, Tensor], config: Any, ids: Tensor) -> Trace:
    trace = Trace()
    tokens, heads = len(ids), config.n_head

    def linear(name: str, states: Tensor) -> Tensor:
        return states @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def noted(name: str, states: Tensor) -> Tensor:
        middle = states.mean(-1, keepdim=True)
        spread = ((states - middle).square().mean(-1, keepdim=True) + config.layer_norm_epsilon).sqrt()
        trace.norms_in.append(states)
        trace.norms_out.append((states - middle) / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"])
        return trace.norms_out[-1]

    states = weights["transformer.wte.weight"][ids] + weights["transformer.wpe.weight"][:tokens]
    for layer in range(config.n_layer):
        block = f"transformer.h.{layer}"
        fused = linear(f"{block}.attn.c_attn", noted(f"{block}.ln_1", states))
        query, key, value = (part.view(tokens, heads, -1) for part in fused.chunk(3, dim=-1))
        trace.heads.append(_attend(query, key, value))
        states = states + linear(f"{block}.attn.c_proj", trace.heads[-1].flatten(1))
        wide = linear(f"{block}.mlp.c_fc", noted(f"{block}.ln_2", states))
        tanh = torch.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
        trace.neurons.append(wide * (1 + tanh) / 2)
        states = states + linear(f"{block}.mlp.c_proj", trace.neurons[-1])
    trace.logits = noted("transformer.ln_f", states) @ weights["lm_head.weight"].T
    return trace
