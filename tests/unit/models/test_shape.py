"""What a configuration says of a model, against the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from distillkit.models.backbone_and_head import split_model
from distillkit.models.pruning import keep_layers
from distillkit.models.shape import ModelShape, model_shape

SMALL: dict[str, Any] = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
GPT2: dict[str, Any] = {"vocab_size": 90, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
# Heads that are plain, and heads with soft caps, scales and projections.
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gpt_neo": {**SMALL, "num_layers": 3, "num_heads": 4, "attention_types": [[["global", "local", "global"], 1]]},
    "gptj": {**GPT2, "rotary_dim": 4},
    "gpt_neox": SMALL,
    "bloom": {"vocab_size": 90, "hidden_size": 32, "n_layer": 3, "n_head": 4},
    "mpt": {"vocab_size": 90, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64},
    "opt": {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 16},
    "llama": SMALL,
    "qwen2": {**SMALL, "tie_word_embeddings": True},
    "mixtral": {**SMALL, "num_local_experts": 2},
    "gemma2": {**SMALL, "head_dim": 8},
    "cohere": SMALL,
    "granite": {**SMALL, "logits_scaling": 4.0},
    "mamba": {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 4},
    "rwkv": {"vocab_size": 90, "hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 3},
}
PLAIN = set(KINDS) - {"gemma2", "cohere", "granite"}


def made(kind: str) -> tuple[Any, ModelShape]:
    config = AutoConfig.for_model(kind, **KINDS[kind])
    torch.manual_seed(0)
    shape = model_shape(config.to_dict())
    assert shape is not None
    return AutoModelForCausalLM.from_config(config).eval(), shape


@pytest.mark.parametrize("kind", KINDS)
def test_the_shape_is_that_of_the_model(kind: str) -> None:
    model, shape = made(kind)
    assert shape.parameters == sum(weights.numel() for weights in model.parameters())
    head = model.get_output_embeddings()
    assert (shape.layers, shape.vocabulary, shape.width) == (3, head.out_features, head.in_features)
    assert shape.head_is_plain == split_model(model).apart == (kind in PLAIN)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"rwkv", "mamba"}))
def test_the_shape_with_fewer_layers_is_that_of_the_cut_model(kind: str) -> None:
    model, shape = made(kind)
    fewer = shape.with_layers(2)
    assert fewer is not None
    cut = keep_layers(model, 2)
    assert fewer.layers == 2
    assert fewer.parameters == sum(weights.numel() for weights in cut.parameters())


def test_what_cannot_be_built_has_no_shape() -> None:
    assert model_shape({"model_type": "no such architecture"}) is None
    assert model_shape({"model_type": "llama", "auto_map": {"AutoConfig": "own.Config"}}) is None
    assert model_shape({}) is None
