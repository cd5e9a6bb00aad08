"""Students made of some of the teacher's layers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from transformers import AutoModelForCausalLM, GPTNeoConfig, GPTNeoForCausalLM, MixtralConfig, MixtralForCausalLM

from distillkit.errors import UsageError
from distillkit.models.pruning import decoder_blocks, evenly_spaced, keep_layers

IDS = torch.arange(1, 13).reshape(2, 6)


def make(family: str, layers: int = 6) -> Any:
    if family == "gpt_neo":
        kinds = [[["global", "local"], layers // 2]]
        return GPTNeoForCausalLM(
            GPTNeoConfig(vocab_size=99, hidden_size=32, num_layers=layers, num_heads=4, attention_types=kinds,
                         max_position_embeddings=64, bos_token_id=None, eos_token_id=None)
        ).eval()  # fmt: skip
    if family == "mixtral":  # as many experts as layers: lists inside a list of equal length
        return MixtralForCausalLM(
            MixtralConfig(vocab_size=99, hidden_size=32, intermediate_size=32, num_hidden_layers=layers,
                          num_attention_heads=4, num_key_value_heads=2, num_local_experts=layers,
                          max_position_embeddings=64, bos_token_id=None, eos_token_id=None)
        ).eval()  # fmt: skip
    return tiny_model(family, 99, layers=layers)


def test_evenly_spaced() -> None:
    assert evenly_spaced(1, 12) == [0]
    assert evenly_spaced(2, 12) == [0, 11]
    assert evenly_spaced(10, 30) == [0, 3, 6, 10, 13, 16, 19, 23, 26, 29]
    for total in range(1, 41):
        for count in range(1, total + 1):
            kept = evenly_spaced(count, total)
            assert kept == sorted(set(kept))
            assert len(kept) == count
            assert count == 1 or (kept[0], kept[-1]) == (0, total - 1)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gpt_neox", "gpt_neo", "mixtral"])
def test_kept_layers_are_the_teachers_and_survive_saving(family: str, tmp_path: Path) -> None:
    teacher = make(family)
    before = copy.deepcopy(teacher.state_dict())
    with torch.no_grad():
        teacher_logits = teacher(IDS).logits
    student = keep_layers(teacher, 3)
    kept = [0, 2, 5]
    blocks, teacher_blocks = decoder_blocks(student)[2], decoder_blocks(teacher)[2]
    assert (len(blocks), len(teacher_blocks)) == (3, 6)
    for position, index in enumerate(kept):
        own, source = blocks[position].state_dict(), teacher_blocks[index].state_dict()
        assert all(torch.equal(own[name], source[name]) for name in source)
    # Independent of the teacher, which is as it was.
    teacher_memory = {parameter.data_ptr() for parameter in teacher.parameters()}
    assert not teacher_memory & {parameter.data_ptr() for parameter in student.parameters()}
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    with torch.no_grad():
        assert torch.equal(teacher(IDS).logits, teacher_logits)
        logits = student(IDS).logits
        assert not torch.allclose(logits, teacher_logits)
        student.save_pretrained(tmp_path)
        again: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
        assert torch.equal(again(IDS).logits, logits)
        settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
        with_cache = student.generate(IDS, use_cache=True, **settings)
        assert torch.equal(with_cache, student.generate(IDS, use_cache=False, **settings))
        assert torch.equal(with_cache, again.generate(IDS, use_cache=True, **settings))


def test_the_first_layers_alone_are_the_teacher_cut_short() -> None:
    """What the student computes is what the teacher's first layers, its last norm and its head compute."""
    teacher = tiny_model("llama", 99, layers=4)
    student: Any = keep_layers(teacher, [0, 1])
    with torch.no_grad():
        hidden = teacher(IDS, output_hidden_states=True).hidden_states[2]
        expected = teacher.lm_head(teacher.model.norm(hidden))
        torch.testing.assert_close(student(IDS).logits, expected)


def test_tied_embeddings_stay_tied() -> None:
    student: Any = keep_layers(tiny_model("gpt2", 99), 1)
    assert student.lm_head.weight is student.transformer.wte.weight


def test_lists_in_the_configuration(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    teacher = tiny_model("qwen2", 99, layers=3, layer_types=kinds, use_sliding_window=True, sliding_window=4,
                         eos_token_id=[5, 6, 7])  # fmt: skip
    student: Any = keep_layers(teacher, [1, 2])
    student.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["layer_types"] == kinds[1:]
    assert config["num_hidden_layers"] == 2
    # As many as layers, and yet no list of layers.
    assert config["eos_token_id"] == [5, 6, 7]
    assert teacher.config.layer_types == kinds


@pytest.mark.parametrize("layers", [7, 100, [0, 6], [-1, 2], [2, 1], [1, 1], []])
def test_layers_that_are_not_there(layers: int | list[int]) -> None:
    teacher = tiny_model("gpt2", 99, layers=6)
    with pytest.raises(UsageError, match="the teacher has 6 layers"):
        keep_layers(teacher, layers)
    assert len(decoder_blocks(teacher)[2]) == 6


def test_a_model_whose_layers_cannot_be_told_apart() -> None:
    teacher = tiny_model("gpt2", 99)
    teacher.more = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    with pytest.raises(UsageError, match="cannot be told apart"):
        keep_layers(teacher, 1)
