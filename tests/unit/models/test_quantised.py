"""How a checkpoint's quantisation is told from its configuration, or from its files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from distillkit.models.quantised import quantisation, read_by_transformers
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
