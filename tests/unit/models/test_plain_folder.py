"""A folder is used as it is unless something in it disturbs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer

from distillkit.console import Console
from distillkit.models.loading import load_model, load_tokenizer
from distillkit.models.located import LocatedModel
from distillkit.models.plain_folder import plain_folder
from distillkit.models.references import parse_reference

QUIET = Console(quiet=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model_folder(tmp_path / "model", tiny_model("llama", 300), tiny_tokenizer(300))


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def load(folder: Path) -> Any:
    return load_model(LocatedModel(parse_reference(str(folder)), folder), dtype=torch.float32, console=QUIET)


@pytest.mark.parametrize(
    "settings", [{}, {"return_dict": True}, {"output_attentions": False}, {"attn_implementation": "eager"}]
)
def test_most_folders_are_used_as_they_are(folder: Path, settings: dict[str, Any]) -> None:
    change(folder, **settings)
    with plain_folder(folder) as used:
        assert used == folder


@pytest.mark.parametrize(
    "settings",
    [
        {"return_dict": False},
        {"use_return_dict": False},
        {"torchscript": True},
        {"output_attentions": True},
        {"output_attentions": True, "_attn_implementation": "sdpa"},
        {"output_hidden_states": True},
        {"attn_implementation": "flash_attention_2"},
        {"_attn_implementation": "kernels-community/flash-attn"},
        {"pad_token_id": 300},
        {"quantization_config": {}},
        {"pruned_heads": {"0": [1]}},
    ],
)
def test_settings_that_change_what_comes_out(folder: Path, settings: dict[str, Any]) -> None:
    ids = torch.arange(9)[None]
    expected = load(folder)(input_ids=ids).logits
    change(folder, **settings)
    before = (folder / "config.json").read_bytes()
    found = load(folder)(input_ids=ids)
    assert torch.equal(found.logits, expected)
    assert found.get("attentions") is None
    assert found.get("hidden_states") is None
    assert load_tokenizer(LocatedModel(parse_reference(str(folder)), folder)).get_vocab()
    assert (folder / "config.json").read_bytes() == before


def test_adapters_are_out_of_sight(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with plain_folder(folder) as used:
        assert {path.name for path in used.iterdir()} == {
            path.name for path in folder.iterdir() if not path.name.startswith("adapter_")
        }
        assert (used / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert not used.exists()
