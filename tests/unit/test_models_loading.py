"""From a folder to a model: what is refused, and what comes out."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from distillkit.console import Console
from distillkit.errors import DistillkitError, PreconditionError, UsageError
from distillkit.models.loading import (
    LocatedModel,
    context_length,
    load_model,
    load_student,
    load_tokenizer,
    locate,
)
from distillkit.models.references import parse_reference


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model_folder(tmp_path / "model", tiny_model("gpt2", 300), tiny_tokenizer(300))


def found_at(folder: Path, **settings: Any) -> LocatedModel:
    return locate(parse_reference(str(folder)), Console(quiet=True), **settings)


def load(folder: Path) -> Any:
    return load_model(found_at(folder), dtype=torch.float32, console=Console(quiet=True))


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gpt_neox"])
def test_what_was_saved_is_loaded(family: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = tiny_model(family, 300), tiny_tokenizer(300)
    save_model_folder(tmp_path, model, tokenizer)
    capfd.readouterr()
    located, ids = found_at(tmp_path), torch.arange(10)[None]
    loaded = load_model(located, dtype=torch.float32, console=Console(quiet=True))
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert not loaded.training
    assert load_tokenizer(located).get_vocab() == tokenizer.get_vocab()
    assert context_length(located) == 256
    assert capfd.readouterr().err == ""


def test_the_format_of_the_weights(tmp_path: Path) -> None:
    """A bf16 checkpoint does not make a bf16 student."""
    save_model_folder(tmp_path, tiny_model("llama", 300).to(torch.bfloat16), tiny_tokenizer(300))
    located, console = found_at(tmp_path), Console(quiet=True)
    for dtype in (torch.float32, torch.bfloat16):
        model = load_model(located, dtype=dtype, console=console)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    student = load_student(located, console=console)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}


def test_a_student_from_the_teacher(tmp_path: Path) -> None:
    teacher = found_at(save_model_folder(tmp_path, tiny_model("gpt2", 300, layers=4), tiny_tokenizer(300)))
    student = locate(parse_reference("teacher:0,3"), Console(quiet=True), teacher=teacher)
    model: Any = load_student(student, console=Console(quiet=True))
    assert model.config.num_hidden_layers == 2
    assert len(load_tokenizer(student)) == 300
    other = locate(parse_reference("teacher:0,2"), Console(quiet=True), teacher=teacher)
    assert len({teacher.fingerprint(), student.fingerprint(), other.fingerprint()}) == 3
    with pytest.raises(UsageError, match="needs a teacher"):
        locate(parse_reference("teacher:2"), Console(quiet=True))


def test_the_fingerprint_follows_the_content(folder: Path) -> None:
    first = found_at(folder).fingerprint()
    moved = folder.rename(folder.with_name("moved"))
    assert found_at(moved).fingerprint() == first
    (moved / "README.md").write_text("words about the model")
    assert found_at(moved).fingerprint() == first
    weights = load_file(moved / "model.safetensors")
    name = sorted(weights)[0]
    before = (moved / "model.safetensors").stat()
    weights[name] = weights[name] + 1
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    assert (moved / "model.safetensors").stat().st_size == before.st_size
    assert found_at(moved).fingerprint() != first
    second = found_at(moved).fingerprint()
    change_config(moved, layer_norm_epsilon=1e-4)
    assert found_at(moved).fingerprint() != second


def test_what_the_manifest_says_names_no_place_on_this_machine(folder: Path) -> None:
    located = LocatedModel(parse_reference("org/name@v1"), folder, "c0ffee")
    assert located.describe() == {"kind": "hub", "reference": "org/name@v1", "revision": "c0ffee"}


def test_own_code_runs_only_when_trusted(folder: Path) -> None:
    code = """
from transformers import GPT2Config, GPT2LMHeadModel
class MyConfig(GPT2Config):
    model_type = "my-gpt2"
class MyModel(GPT2LMHeadModel):
    config_class = MyConfig
"""
    (folder / "mine.py").write_text(code)
    auto_map = {"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"}
    change_config(folder, auto_map=auto_map, model_type="my-gpt2")
    with pytest.raises(PreconditionError, match="its own Python code") as caught:
        found_at(folder)
    assert "--trust-remote-code" in str(caught.value.hint)
    located = found_at(folder, trust_remote_code=True)
    fingerprint = located.fingerprint()
    model = load_model(located, dtype=torch.float32, trust_remote_code=True, console=Console(quiet=True))
    assert type(model).__name__ == "MyModel"
    (folder / "mine.py").write_text(code + "# changed\n")
    assert located.fingerprint() != fingerprint


def test_own_code_of_a_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["x.Y", None]}}))
    with pytest.raises(PreconditionError, match="its own Python code"):
        found_at(folder)


def test_pickles_are_never_read(folder: Path, tmp_path: Path) -> None:
    class Dangerous:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "it ran"),)

    (folder / "model.safetensors").unlink()
    torch.save({"x": Dangerous()}, folder / "pytorch_model.bin")
    with pytest.raises(PreconditionError, match="only as pickle") as caught:
        found_at(folder)
    assert "safetensors" in str(caught.value.hint)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_no_causal_language_model(kind: str, tmp_path: Path) -> None:
    if kind == "bert":
        settings = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
        BertForMaskedLM(BertConfig(vocab_size=30, **settings)).save_pretrained(tmp_path)
    else:
        T5ForConditionalGeneration(
            T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        ).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="not a causal language model"):
        found_at(tmp_path)


def test_an_architecture_without_a_causal_form(folder: Path) -> None:
    change_config(folder, model_type="clip", architectures=["CLIPModel"])
    with pytest.raises(UsageError, match="no causal language model: CLIPModel"):
        load(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights(folder: Path, share: float) -> None:
    weights = folder / "model.safetensors"
    os.truncate(weights, int(weights.stat().st_size * share))
    with pytest.raises(PreconditionError, match="model.safetensors is damaged") as caught:
        found_at(folder)
    assert caught.value.exit_code == 3
    assert "get it again" in str(caught.value.hint)


def test_a_missing_shard(tmp_path: Path) -> None:
    save_model_folder(tmp_path, tiny_model("llama", 300), tiny_tokenizer(300))
    model = tiny_model("llama", 300)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert sum(parameter.numel() for parameter in load(tmp_path).parameters()) == model.num_parameters()
    shard = sorted(tmp_path.glob("model-*.safetensors"))[-1]
    shard.unlink()
    with pytest.raises(PreconditionError, match=f"{shard.name} is missing"):
        found_at(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": ')
    with pytest.raises(PreconditionError, match="index.json is damaged"):
        found_at(tmp_path)


def test_weights_are_never_random(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "transformer.h.1.mlp.c_fc.weight"
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PreconditionError, match=r"lacks weights \(1, such as transformer.h.1.mlp.c_fc.weight\)"):
        load(folder)


def test_more_layers_than_weights(folder: Path) -> None:
    change_config(folder, n_layer=3)
    with pytest.raises(PreconditionError, match="they would be random"):
        load(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    change_config(folder, n_embd=64)
    with pytest.raises(PreconditionError) as caught:
        load(folder)
    assert "\n" not in caught.value.message


def test_unused_weights_are_mentioned(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors") | {"transformer.extra.weight": torch.zeros(2)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    err = io.StringIO()
    load_model(found_at(folder), dtype=torch.float32, console=Console(err=err))
    assert "1 weights are not used (such as transformer.extra.weight)" in err.getvalue()


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff"])
def test_a_damaged_configuration(folder: Path, content: str) -> None:
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(PreconditionError, match=r"config\.json"):
        found_at(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\x00\xff"])
def test_a_damaged_tokenizer(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(DistillkitError) as caught:
        load_tokenizer(found_at(folder))
    assert caught.value.exit_code == 3
    assert "the tokenizer of" in caught.value.message
    assert "\n" not in caught.value.message


def test_no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(PreconditionError, match="the tokenizer of"):
        load_tokenizer(found_at(folder))
