"""How a checkpoint's quantisation is told from its configuration, or from its files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from distillkit.errors import PreconditionError
from distillkit.models import quantised
from distillkit.models.quantised import (
    can_have_adapter,
    check_quantised,
    convert_the_rest,
    quantisation,
    read_by_transformers,
)
from distillkit.models.safetensors_reader import StoredWeights


def stored(folder: Path, **weights: torch.Tensor) -> StoredWeights:
    save_file(weights, folder / "model.safetensors")
    return StoredWeights([folder / "model.safetensors"])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes, 4 bits"),
        ({"quantization_config": {"load_in_8bit": True}}, "bitsandbytes, 8 bits"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq, 4 bits"),
        ({"quantization_config": {"quant_method": "awq", "w_bit": 4}}, "awq, 4 bits"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "a method without a name, 4 bits"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"text_config": {"quantization_config": {"quant_method": "mxfp4"}}}, "mxfp4"),
        ({"quantization_config": None, "quantization": {}}, None),
        ({}, None),
    ],
)
def test_what_a_configuration_says(tmp_path: Path, config: dict[str, Any], words: str | None) -> None:
    plain = stored(tmp_path, **{"a.weight": torch.zeros(2, 2)})
    assert quantisation(config, plain) == words


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"a.qweight": torch.zeros(2, 2, dtype=torch.int32)}, "a.qweight is stored as I32"),
        ({"a.weight": torch.zeros(2, 2, dtype=torch.int8)}, "a.weight is stored as I8"),
        (
            {"a.weight": torch.zeros(2, 2).to(torch.float8_e4m3fn), "a.weight_scale": torch.zeros(1)},
            "a.weight is stored as F8_E4M3",
        ),
        ({"a.weight": torch.zeros(2, 2).to(torch.float8_e4m3fn)}, None),  # Only narrow: read as it is.
        ({"a.attn.bias": torch.zeros(2, 2, dtype=torch.uint8), "a.weight": torch.zeros(2, 2)}, None),  # GPT-2's masks.
    ],
)
def test_what_the_files_say(tmp_path: Path, weights: dict[str, torch.Tensor], words: str | None) -> None:
    assert quantisation({}, stored(tmp_path, **weights)) == words


def test_what_transformers_reads() -> None:
    assert read_by_transformers({"quantization_config": {"quant_method": "gptq", "bits": 4}})
    assert not read_by_transformers({"quantization_config": {"quant_method": "nobody knows it"}})
    assert not read_by_transformers({"quantization_config": {"bits": 4}})
    assert not read_by_transformers({})


# As published checkpoints have them: TheBloke's, Qwen's, RedHatAI's, unsloth's, DeepSeek's.
GPTQ = {"bits": 4, "group_size": 128, "damp_percent": 0.1, "desc_act": False, "sym": True, "quant_method": "gptq"}
AWQ = {"quant_method": "awq", "zero_point": True, "group_size": 128, "bits": 4, "version": "gemm"}
COMPRESSED = {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"], "quantization_status": "compressed",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 128}}},
}  # fmt: skip
BITSANDBYTES = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (GPTQ, "'gptqmodel>=4.0' 'optimum>=1.24'"),
        (AWQ, "'gptqmodel>=4.0'"),
        (COMPRESSED, "'compressed-tensors>=0.15'"),
        (BITSANDBYTES, "'bitsandbytes>=0.46'"),
    ],
)
def test_a_library_that_is_missing_is_named(
    settings: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantised, "is_satisfied", lambda _: False)
    with pytest.raises(
        PreconditionError, match=rf"big is quantised .*: that needs {named}, which is not installed"
    ) as caught:
        check_quantised("big", {"quantization_config": settings}, "so")
    assert caught.value.exit_code == 3
    assert f"pip install {named}" in str(caught.value.hint)


def test_what_this_machine_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """In transformers' own words, and before any weight is read."""
    monkeypatch.setattr(quantised, "is_satisfied", lambda _: True)
    with pytest.raises(
        PreconditionError, match=r"big is quantised .* and cannot be loaded here: .*(GPU|CUDA|vptq|VPTQ)"
    ):
        check_quantised("big", {"quantization_config": {"quant_method": "vptq"}}, "so")
    check_quantised("big", {"quantization_config": FP8}, "so")  # Widened where there is no GPU.
    check_quantised("big", {}, "so")


def test_beside_which_weights_an_adapter_can_be_trained() -> None:
    assert can_have_adapter({"quantization_config": BITSANDBYTES})
    assert not can_have_adapter({"quantization_config": {"load_in_8bit": True}})
    assert not can_have_adapter({"quantization_config": GPTQ})
    assert not can_have_adapter({})


class Packed(torch.nn.Module):
    """A layer of a library, with whole numbers and their scales."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.uint8), requires_grad=False)
        self.scales = torch.nn.Parameter(torch.ones(2))


def test_what_is_not_quantised_gets_the_format_that_was_asked_for() -> None:
    model = torch.nn.ModuleDict(
        {"embedding": torch.nn.Embedding(3, 2), "norm": torch.nn.LayerNorm(2), "router": torch.nn.Linear(2, 2)}
    )
    model["packed"] = Packed()
    model["norm"].register_buffer("angles", torch.ones(2))
    model._keep_in_fp32_modules_strict = {"router"}  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    convert_the_rest(model, torch.bfloat16)
    formats = {name: values.dtype for name, values in [*model.named_parameters(), *model.named_buffers()]}
    assert {name for name, dtype in formats.items() if dtype == torch.bfloat16} == {
        "embedding.weight", "norm.weight", "norm.bias",
    }  # fmt: skip
    assert formats["packed.weight"] == torch.uint8
