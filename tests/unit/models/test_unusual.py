"""Architectures and folders that are not like the others: layers with other names, lists in lists, no tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_model_folder, tiny_model
from transformers import AutoModelForCausalLM, GPTNeoConfig, GPTNeoForCausalLM, MixtralConfig, MixtralForCausalLM

from distillkit.console import Console
from distillkit.errors import PreconditionError, UsageError
from distillkit.models.loading import load_tokenizer
from distillkit.models.locating import locate
from distillkit.models.pruning import decoder_blocks, keep_layers
from distillkit.models.references import parse_reference

IDS = torch.arange(1, 13).reshape(2, 6)
LAYERS = 6


def gpt_neo() -> Any:
    """Numbers its blocks as `layer_id`, and lists the kinds of its layers twice."""
    config = GPTNeoConfig(
        vocab_size=99, hidden_size=32, num_layers=LAYERS, num_heads=4, max_position_embeddings=64,
        attention_types=[[["global", "local"], LAYERS // 2]], bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return GPTNeoForCausalLM(config).eval()


def mixtral() -> Any:
    """Has as many experts in each layer as there are layers."""
    config = MixtralConfig(
        vocab_size=99, hidden_size=32, intermediate_size=32, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=LAYERS, max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return MixtralForCausalLM(config).eval()


@pytest.mark.parametrize("make", [gpt_neo, mixtral])
def test_layers_are_left_out(make: Any, tmp_path: Path) -> None:
    teacher = make()
    student: Any = keep_layers(teacher, [0, 2, 5])
    assert (len(decoder_blocks(student)[2]), len(decoder_blocks(teacher)[2])) == (3, LAYERS)
    student.save_pretrained(tmp_path)
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, student(IDS).logits)
        written = student.generate(IDS, use_cache=True, **settings)
        assert torch.equal(written, student.generate(IDS, use_cache=False, **settings))
        assert torch.equal(written, again.generate(IDS, use_cache=True, **settings))


def test_the_kinds_of_layers_follow_the_layers(tmp_path: Path) -> None:
    student: Any = keep_layers(gpt_neo(), [1, 2, 3])
    student.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.attention_layers == ["local", "global", "local"]


def test_as_many_end_tokens_as_layers(tmp_path: Path) -> None:
    student: Any = keep_layers(tiny_model("llama", 99, layers=3, eos_token_id=[5, 6, 7]), 2)
    student.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == [5, 6, 7]


@pytest.mark.parametrize("layers", [[-1, 2], [2, 1], [1, 1], []])
def test_layers_out_of_order(layers: list[int]) -> None:
    with pytest.raises(UsageError, match="the teacher has 4 layers"):
        keep_layers(tiny_model("gpt2", 99, layers=4), layers)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gpt_neox"])
def test_a_folder_without_tokenizer(family: str, tmp_path: Path) -> None:
    """transformers makes an empty tokenizer for most families, with which every text is a text of no tokens."""
    folder = save_model_folder(tmp_path, tiny_model(family, 300), None)
    located = locate(parse_reference(str(folder)), Console(quiet=True))
    with pytest.raises(PreconditionError, match="the tokenizer of") as caught:
        load_tokenizer(located)
    assert caught.value.hint
