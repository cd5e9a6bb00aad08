"""Adapters in memory: which layers get one, what is trained, and the plain model that comes out of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from distillkit.models.lora import LoraSettings, add_lora, base, is_adapted, merged, projections, trained_parameters
from distillkit.models.shape import model_shape

SETTINGS = LoraSettings(rank=3, alpha=6.0, dropout=0.0)
KINDS = ("gpt2", "llama", "gpt_neox", "qwen2")
IDS = torch.arange(20)[None]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def trained(kind: str) -> tuple[Any, torch.Tensor]:
    """A model with an adapter that does something, and the logits that it had before."""
    torch.manual_seed(0)
    model = tiny_model(kind, 300)
    before = logits(model)
    add_lora(model, SETTINGS, "the student")
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.data.normal_(0, 0.1)
    return model, before


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_adapted(kind: str) -> None:
    """Every projection of the blocks, and nothing else; the plan counts the same numbers from the configuration alone."""
    model: Any = tiny_model(kind, 300)
    outside = {model.get_input_embeddings(), model.get_output_embeddings()}
    found = projections(model)
    assert not outside & set(found.values())
    linear = {name for name, module in model.named_modules() if type(module).__name__ in ("Linear", "Conv1D")}
    assert set(found) == {name for name in linear if model.get_submodule(name) not in outside}
    before = logits(model)
    count = add_lora(model, SETTINGS, "the student")
    assert torch.equal(logits(model), before)
    names = trained_parameters(model)
    assert count == sum(value.numel() for value in names.values())
    assert all(".lora_" in name for name in names)
    shape = model_shape(model.config.to_dict())
    assert shape is not None
    assert count == SETTINGS.rank * shape.adapter_widths


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_computes_the_same(kind: str, tmp_path: Path) -> None:
    """As it is read back by plain transformers; what it was made of stays as it was."""
    model, before = trained(kind)
    adapted = logits(model)
    spread = adapted.std()
    assert (adapted - before).abs().max() > 0.01 * spread
    for name, plain, expected in (("merged", merged(model), adapted), ("base", base(model), before)):
        assert not is_adapted(plain)
        plain.save_pretrained(tmp_path / name)
        again = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert type(again) is type(model)
        assert (logits(again) - expected).abs().max() < 1e-5 * spread
    assert torch.equal(logits(model), adapted)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.filterwarnings("ignore")
def test_beside_weights_of_few_bits(tmp_path: Path) -> None:
    """The adapter learns, and the merged model is plain and computes the same up to the rounding of few bits."""
    tiny_model("llama", 300, hidden=64).save_pretrained(tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain",
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        device_map="cpu",
        dtype=torch.float32,
    )
    add_lora(model, SETTINGS, "the student")
    logits(model)  # A score between steps, at which the library may lay its weights out anew.
    model.train()(input_ids=IDS).logits.float().logsumexp(-1).sum().backward()
    for name, value in trained_parameters(model).items():
        if "lora_B" in name:
            assert value.grad is not None
            assert value.grad.abs().sum() > 0
            value.data.normal_(0, 0.1)
    adapted = logits(model).float()
    merged(model).save_pretrained(tmp_path / "merged")
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not hasattr(again.config, "quantization_config")
    assert (logits(again) - adapted).abs().max() < 1e-2 * adapted.std()
