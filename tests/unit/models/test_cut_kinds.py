"""Layers whose kind follows from their number: the student that is saved is the one that is trained, or there is none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from zoo_models import zoo_model

from distillkit.console import Console
from distillkit.errors import UsageError
from distillkit.models.cut_config import UnsavableLayersError, cut_values
from distillkit.models.locating import locate
from distillkit.models.pruning import decoder_blocks, keep_layers
from distillkit.models.references import parse_reference

IDS = torch.arange(3, 35)[None]
MOE = {"num_experts": 4, "decoder_sparse_step": 2, "mlp_only_layers": []}
# What says which layer is of which kind: counts, lists of numbers, rhythms, cycles, and depth.
KINDS: dict[str, dict[str, Any]] = {
    "deepseek_v3": {"first_k_dense_replace": 2},
    "qwen2_moe": MOE,
    "qwen3_moe": {**MOE, "mlp_only_layers": [1]},
    "llama4_text": {"interleave_moe_layer_step": 2, "moe_layers": None, "no_rope_layer_interval": 3},
    "recurrent_gemma": {"block_types": ["recurrent", "recurrent", "attention"]},
    "jamba": {"attn_layer_period": 3, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "diffllama": {},
    "smollm3": {"no_rope_layer_interval": 2},
    "gemma2": {},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3},
    "ernie4_5_moe": {"moe_layer_interval": 2, "moe_layer_start_index": 1, "moe_layer_end_index": 5},
    "lfm2": {"full_attn_idxs": [2, 5]},
    "gpt2": {"scale_attn_by_inverse_layer_idx": True},
}


def teacher_of(kind: str) -> Any:
    return zoo_model(kind, **{"num_hidden_layers": 6} | KINDS[kind])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("kind", KINDS)
def test_the_student_that_is_saved_is_the_one_that_is_trained(kind: str, tmp_path: Path) -> None:
    teacher = teacher_of(kind)
    for number, layers in enumerate((3, [1, 2, 4], [2, 3, 5])):
        try:
            student: Any = keep_layers(teacher, layers)
        except UsageError as error:
            # A rhythm that these layers do not have: another choice is named, and is one.
            assert kind in ("jamba", "ernie4_5_moe")
            found = re.match(r"teacher:([\d,]+) can be saved", error.hint or "")
            assert found
            student = keep_layers(teacher, [int(index) for index in found[1].split(",")])
        folder = tmp_path / str(number)
        student.save_pretrained(folder)
        again, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert torch.equal(logits(again.eval()), logits(student))
        assert len(decoder_blocks(again)[2]) == 3


def test_a_factor_that_follows_the_depth_is_said() -> None:
    told: list[str] = []
    keep_layers(teacher_of("diffllama"), [0, 1], told.append)
    assert not told
    keep_layers(teacher_of("diffllama"), [0, 5], told.append)
    assert len(told) == 1
    assert "lambda_init depends on a layer's number: layer 5, now number 1, has" in told[0]


def test_layers_that_cannot_be_saved_are_refused_when_the_pair_is_opened(tmp_path: Path) -> None:
    zoo_model("rwkv").save_pretrained(tmp_path)
    console = Console(quiet=True)
    teacher = locate(parse_reference(str(tmp_path)), console)
    # The first layer alone has a norm in front of it.
    with pytest.raises(UsageError, match=r"cannot be saved with its layers 1,2 alone: .*pre_ln is added") as caught:
        locate(parse_reference("teacher:1,2"), console, teacher=teacher)
    assert caught.value.hint == "teacher:0,2 can be saved"
    locate(parse_reference("teacher:0,2"), console, teacher=teacher)


def test_rhythms() -> None:
    jamba = {"num_hidden_layers": 12, "attn_layer_period": 4, "attn_layer_offset": 2}
    assert cut_values(jamba, [*range(6)]) == {"num_hidden_layers": 6}
    assert cut_values(jamba, [1, 2, 5, 6])["attn_layer_period"] == 2
    assert cut_values(jamba, [0, 1, 3]) == {"num_hidden_layers": 3, "attn_layer_period": 4, "attn_layer_offset": 3}
    with pytest.raises(UnsavableLayersError, match="attn_layer_period counts in even steps"):
        cut_values(jamba, [2, 6, 7, 10, 11])


def test_lists_of_numbers_as_long_as_there_are_layers() -> None:
    values = {
        "num_hidden_layers": 3,
        "moe_layers": [0, 1, 2],
        "layer_types": ["a", "b", "c"],
        "eos_token_id": [1, 2, 3],
    }
    assert cut_values(values, [1, 2]) == {"num_hidden_layers": 2, "moe_layers": [0, 1], "layer_types": ["b", "c"]}
