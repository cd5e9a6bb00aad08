"""Folders with an adapter: the model that it is for is found, both are read as one model, and what cannot be is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

from distillkit.console import Console
from distillkit.errors import PreconditionError, UsageError
from distillkit.models.adapters import read_adapter
from distillkit.models.loading import load_model, load_tokenizer
from distillkit.models.locating import load_adapted, locate
from distillkit.models.references import parse_reference

QUIET = Console(quiet=True)
IDS = torch.arange(12)[None]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in `model`, and in `adapter` what peft itself saves for it."""
    root = tmp_path_factory.mktemp("adapters")
    save_model_folder(root / "model", tiny_model("gpt2", 300, layers=2), tiny_tokenizer(300))
    base = AutoModelForCausalLM.from_pretrained(root / "model")
    wrapped: Any = get_peft_model(base, LoraConfig(r=2, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True))
    for name, value in wrapped.named_parameters():
        if "lora_B" in name:
            value.data.normal_(0, 0.3)
    wrapped.save_pretrained(root / "adapter")
    return root


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for path in (made / "adapter").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def change(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_an_adapter_is_read_as_the_model_that_it_makes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILLKIT_CACHE", str(tmp_path))
    plain: Any = AutoModelForCausalLM.from_pretrained(made / "model")
    expected = PeftModel.from_pretrained(plain, str(made / "adapter")).eval()(IDS).logits
    located = locate(parse_reference(str(made / "adapter")), QUIET)
    assert located.folder.is_relative_to(tmp_path / "adapters")
    assert load_tokenizer(located).get_vocab()
    model = load_model(located, dtype=torch.float32, console=QUIET)
    assert (model(IDS).logits - expected).abs().max() < 1e-5 * expected.std()
    in_memory: Any = load_adapted(made / "adapter", torch.float32, QUIET)
    assert torch.equal(in_memory(IDS).logits, model(IDS).logits)
    stamps = {path: path.stat().st_mtime_ns for path in located.folder.iterdir()}
    again = locate(parse_reference(str(made / "adapter")), QUIET)
    assert again.fingerprint() == located.fingerprint()
    assert {path: path.stat().st_mtime_ns for path in located.folder.iterdir()} == stamps


def test_where_its_model_is_found(adapter: Path, made: Path) -> None:
    assert read_adapter(adapter).base.path == made / "model"
    change(adapter, base_model_name_or_path="owner/name", revision="abc")
    assert read_adapter(adapter).base.text == "owner/name@abc"
    change(adapter, base_model_name_or_path="beside")
    (adapter / "beside").mkdir()
    (adapter / "beside" / "config.json").write_text("{}")
    assert read_adapter(adapter).base.path == adapter / "beside"
    (adapter / "beside").rename(adapter / "base")
    change(adapter, base_model_name_or_path="owner/name")
    assert read_adapter(adapter).base.path == adapter / "base"


def test_what_is_no_adapter_that_can_be_used(adapter: Path) -> None:
    config = (adapter / "adapter_config.json").read_text()

    def refused(kind: type[Exception], words: str) -> None:
        with pytest.raises(kind, match=words):
            load_adapted(adapter, torch.float32, QUIET)
        (adapter / "adapter_config.json").write_text(config)

    for value in (None, ""):
        change(adapter, base_model_name_or_path=value)
        refused(PreconditionError, "does not say which model the adapter is for")
    change(adapter, base_model_name_or_path="/gone/away")
    refused(PreconditionError, "is an adapter of /gone/away, which is not there")
    change(adapter, peft_type="NOVELTY")
    refused(PreconditionError, "is no adapter that this peft knows")
    (adapter / "adapter_config.json").write_text("[]")
    refused(PreconditionError, "is no JSON object")
    prompt = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
    (adapter / "adapter_config.json").write_text(
        json.dumps(prompt | {"base_model_name_or_path": json.loads(config)["base_model_name_or_path"]})
    )
    refused(UsageError, "of the kind PROMPT_TUNING, which cannot be added")
    change(adapter, r=3)
    refused(PreconditionError, "cannot be added to .*size mismatch")
    save_file({"something": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    refused(PreconditionError, "lacks weights for")
    (adapter / "adapter_model.safetensors").write_bytes(b"damaged")
    refused(PreconditionError, "is damaged")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    refused(PreconditionError, r"only as pickle \(adapter_model.bin\)")
    (adapter / "adapter_model.bin").unlink()
    refused(PreconditionError, "has no adapter_model.safetensors")
