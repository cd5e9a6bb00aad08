"""How many tokens a model can read, found where names do not tell; each answer is tried on the model itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from distillkit.models.context import context_length
from distillkit.models.located import LocatedModel
from distillkit.models.references import parse_reference

_SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
_D_MODEL = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}


def located(folder: Path) -> LocatedModel:
    return LocatedModel(parse_reference(str(folder)), folder)


def reads(model: Any, length: int) -> bool:
    try:
        ids = torch.full((1, length), 7)
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "settings", "context"),
    [
        ("mpt", {"d_model": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 50, "max_seq_len": 20}, 20),
        ("roberta", _SMALL | {"max_position_embeddings": 20, "is_decoder": True, "pad_token_id": 1}, 18),
        ("xlm-roberta-xl", _SMALL | {"max_position_embeddings": 20, "is_decoder": True, "pad_token_id": 3}, 16),
        ("opt", _SMALL | {"max_position_embeddings": 20, "ffn_dim": 16, "word_embed_proj_dim": 16}, 20),
        ("bart", _D_MODEL | {"vocab_size": 50, "max_position_embeddings": 20, "is_encoder_decoder": False}, 20),
        ("gptj", {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4, "n_positions": 20}, 20),
        ("openai-gpt", {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 20}, 20),
        ("ctrl", {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "dff": 16, "n_positions": 20}, 20),
    ],
)
def test_the_longest_text_that_a_model_reads(tmp_path: Path, kind: str, settings: dict[str, Any], context: int) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval()
    model.save_pretrained(tmp_path)
    assert context_length(located(tmp_path), 64) == context
    assert reads(model, context)
    assert not reads(model, context + 1)


def test_what_the_class_fills_in_counts(tmp_path: Path) -> None:
    model = tiny_model("gpt2", 50, context=1024)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["n_positions"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_length(located(tmp_path), 4096) == 1024


@pytest.mark.parametrize("kind", ["bloom", "mamba"])
def test_no_limit(tmp_path: Path, kind: str) -> None:
    settings = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "n_layer": 1, "n_head": 2}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).save_pretrained(tmp_path)
    assert context_length(located(tmp_path), 4096) is None


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": 2048, "seq_length": 8192}, 2048),
        ({"text_config": {"max_position_embeddings": 512}}, 512),
        ({"model_max_length": 4096}, 4096),
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": -1, "n_ctx": 128}, 128),
        ({"block_size": 64}, 64),
        ({"block_size": 64, "num_random_blocks": 3}, None),
        ({}, None),
    ],
)
def test_names_of_a_configuration(tmp_path: Path, config: dict[str, Any], context: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_length(located(tmp_path), 256) == context


OWN = """
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
class OwnConfig(GPT2Config):
    model_type = "own_gpt"
class OwnModel(GPT2LMHeadModel):
    config_class = OwnConfig
    def forward(self, input_ids=None, **named):
        if input_ids.shape[1] > 23:
            raise IndexError("no place for it")
        return super().forward(input_ids=input_ids, **named)
"""


def test_a_model_with_its_own_code_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = save_model_folder(tmp_path / "own", tiny_model("gpt2", 300, context=128), tiny_tokenizer(300))
    (folder / "own_gpt.py").write_text(OWN)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_gpt", "architectures": ["OwnModel"]}
    config["auto_map"] = {"AutoConfig": "own_gpt.OwnConfig", "AutoModelForCausalLM": "own_gpt.OwnModel"}
    del config["n_positions"]
    (folder / "config.json").write_text(json.dumps(config))
    # Its learned positions have a name that tells; what it does with them only trying it tells, and only if it may run.
    assert context_length(located(folder), 64) == 128
    assert context_length(located(folder), 64, trust_remote_code=True) == 23
    assert context_length(located(folder), 20, trust_remote_code=True) == 128
