"""A student's config.json and files are its origin's but for what training had to change."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from distillkit.console import Console
from distillkit.models.loading import load_model, load_student
from distillkit.models.located import LocatedModel
from distillkit.models.references import parse_reference
from distillkit.models.student_files import kept_files, save_student
from distillkit.models.usable_ids import add_rows

QUIET = Console(quiet=True)


def located(folder: Path, student: str | None = None) -> LocatedModel:
    return LocatedModel(parse_reference(student or str(folder)), folder)


def change(folder: Path, **values: Any) -> None:
    """Set values in config.json, or with None take them away."""
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def saved(tmp_path: Path, origin: Path, model: Any, *, trust: bool = False) -> Path:
    """What is saved of a trained model: the Trainer has switched its cache off. It computes the same once it is loaded."""
    target = tmp_path / "saved"
    target.mkdir()
    model.config.use_cache = False
    save_student(target, model, origin, trust_remote_code=trust)
    again = load_model(located(target), dtype=torch.float32, trust_remote_code=trust, console=QUIET)
    ids = torch.arange(9)[None]
    assert torch.equal(again(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
    return target


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gpt_neox"])
def test_nothing_changes_but_the_format_of_the_weights(tmp_path: Path, family: str) -> None:
    origin = save_model_folder(tmp_path / "origin", tiny_model(family, 300).to(torch.bfloat16), tiny_tokenizer(300))
    change(origin, of_the_authors={"any": 1}, transformers_version="4.1.0", license="mit")
    target = saved(tmp_path, origin, load_student(located(origin), console=QUIET))
    assert read(target) == read(origin) | {"dtype": "float32"}


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_fewer_layers_and_more_rows(tmp_path: Path, family: str) -> None:
    origin = save_model_folder(tmp_path / "origin", tiny_model(family, 300, layers=4), tiny_tokenizer(300))
    model = add_rows(load_student(located(origin, "teacher:2"), console=QUIET), 310, "it")
    found, own = read(saved(tmp_path, origin, model)), read(origin)
    layers = "n_layer" if family == "gpt2" else "num_hidden_layers"
    changed = {name: found[name] for name in found if found[name] != own.get(name)}
    assert changed.pop("layer_types", ["full_attention"] * 2) == ["full_attention"] * 2
    assert changed == {layers: 2, "vocab_size": 310}


def test_another_name_of_a_changed_setting_does_not_contradict_it(tmp_path: Path) -> None:
    origin = save_model_folder(tmp_path / "origin", tiny_model("gpt2", 300, layers=3), tiny_tokenizer(300))
    change(origin, n_layer=None, num_hidden_layers=3)
    target = saved(tmp_path, origin, load_student(located(origin, "teacher:2"), console=QUIET))
    assert AutoConfig.from_pretrained(target).n_layer == 2
    assert "num_hidden_layers" not in read(target)


def test_settings_for_writing_that_transformers_would_not_save(tmp_path: Path) -> None:
    origin = save_model_folder(tmp_path / "origin", tiny_model("gpt2", 300), tiny_tokenizer(300))
    change(origin, do_sample=True, max_length=50)
    (origin / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.3}')
    target = saved(tmp_path, origin, load_student(located(origin), console=QUIET))
    assert (target / "generation_config.json").read_bytes() == (origin / "generation_config.json").read_bytes()
    assert read(target) == read(origin)


def test_a_backbone_on_disk_becomes_a_whole_model(tmp_path: Path) -> None:
    model: Any = tiny_model("gpt2", 300)
    model.transformer.save_pretrained(tmp_path / "origin")
    tiny_tokenizer(300).save_pretrained(tmp_path / "origin")
    target = saved(tmp_path, tmp_path / "origin", load_student(located(tmp_path / "origin"), console=QUIET))
    assert read(tmp_path / "origin")["architectures"] == ["GPT2Model"]
    assert read(target)["architectures"] == ["GPT2LMHeadModel"]


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
from .own_parts import SIZE
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    origin = save_model_folder(tmp_path / "origin", tiny_model("llama", 300), tiny_tokenizer(300))
    (origin / "own_model.py").write_text(CODE)
    (origin / "own_parts.py").write_text("SIZE = 3\n")
    classes = {"AutoConfig": "own_model.OwnConfig", "AutoModelForCausalLM": "own_model.OwnModel"}
    change(origin, model_type="own_llama", auto_map=classes, architectures=["OwnModel"])
    model = load_student(located(origin), trust_remote_code=True, console=QUIET)
    target = saved(tmp_path, origin, model, trust=True)
    assert read(target) == read(origin)
    for name in ("own_model.py", "own_parts.py"):
        assert (target / name).read_bytes() == (origin / name).read_bytes()
    assert type(AutoModelForCausalLM.from_pretrained(target, trust_remote_code=True)).__name__ == "OwnModel"


def test_a_sentencepiece_tokenizer_stays_one(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    from tiny_models import sentencepiece_folder, train_sentencepiece

    origin = sentencepiece_folder(tmp_path / "origin", train_sentencepiece(tmp_path / "pieces.model"))
    tiny_model("llama", 420).save_pretrained(origin)
    target = saved(tmp_path, origin, load_student(located(origin), console=QUIET))
    for name in ("tokenizer.model", "tokenizer_config.json"):
        assert (target / name).read_bytes() == (origin / name).read_bytes()
    text = "the old kettle"
    assert AutoTokenizer.from_pretrained(target)(text) == AutoTokenizer.from_pretrained(origin)(text)


def test_files_of_the_hubs_cache_are_links(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for name in ("LICENSE", "tokenizer.json", "model.safetensors", "config.json", "README.md", ".gitattributes"):
        (blobs / name).write_text(name)
        (snapshot / name).symlink_to(os.path.relpath(blobs / name, snapshot))
    assert [path.name for path in kept_files(snapshot)] == ["LICENSE", "tokenizer.json"]
