"""What may be loaded as a model, what is refused, and that nothing is random without a word."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from distillkit.console import Console
from distillkit.errors import PreconditionError, UsageError
from distillkit.models.loading import load_model, load_student, load_tokenizer
from distillkit.models.located import LocatedModel
from distillkit.models.locating import locate
from distillkit.models.references import parse_reference

QUIET = Console(quiet=True)


def located(folder: Path, **options: Any) -> LocatedModel:
    return locate(parse_reference(str(folder)), QUIET, **options)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return load_model(located(folder), dtype=dtype, console=QUIET)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model_folder(tmp_path / "model", tiny_model("llama", 300), tiny_tokenizer(300))


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_weights(folder: Path, **values: torch.Tensor | None) -> None:
    """Replace weights; None takes one away."""
    path = folder / "model.safetensors"
    weights = {**load_file(path), **values}
    kept = {name: tensor for name, tensor in weights.items() if tensor is not None}
    save_file(kept, path, metadata={"format": "pt"})


def test_a_folder_is_loaded_as_it_is(folder: Path) -> None:
    found = located(folder)
    assert found.folder == folder
    assert found.revision is None
    model: Any = load_model(found, dtype=torch.float32, console=QUIET)
    assert not model.training
    saved = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    assert load_tokenizer(found)("a b")["input_ids"] == tiny_tokenizer(300)("a b")["input_ids"]
    assert found.describe() == {"kind": "folder", "reference": str(folder), "revision": None}


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gpt_neox"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_student_in_half_precision_trains_in_fp32(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    saved = save_model_folder(tmp_path / "model", tiny_model(family, 300).to(dtype), tiny_tokenizer(300))
    assert json.loads((saved / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    student = load_student(located(saved), console=QUIET)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
    on_disk = load_file(saved / "model.safetensors")
    for name, tensor in on_disk.items():
        # GPT-NeoX's head has another name on disk.
        loaded = student.state_dict()[name.replace("embed_out", "lm_head")]
        assert torch.equal(loaded, tensor.float())
    # The teacher is loaded as asked, too.
    assert {parameter.dtype for parameter in load(saved, torch.bfloat16).parameters()} == {torch.bfloat16}


def test_some_layers_of_the_teacher(folder: Path) -> None:
    teacher = located(folder)
    reference = parse_reference("teacher:1", role="student")
    student = locate(reference, QUIET, teacher=teacher)
    assert student.folder == teacher.folder
    assert student.fingerprint() != teacher.fingerprint()
    pruned: Any = load_student(student, console=QUIET)
    assert pruned.config.num_hidden_layers == 1
    assert load_tokenizer(student).get_vocab() == load_tokenizer(teacher).get_vocab()
    with pytest.raises(UsageError, match="needs a teacher"):
        locate(reference, QUIET)
    with pytest.raises(UsageError, match="has only 2 layers"):
        load_student(locate(parse_reference("teacher:3"), QUIET, teacher=teacher), console=QUIET)


class Marker:
    """Leaves a file if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_pickles_are_refused_and_never_read(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Marker(tmp_path / "it ran")))
    with pytest.raises(PreconditionError, match=f"only as pickle \\({name}\\)") as caught:
        located(folder)
    assert "safetensors" in (caught.value.hint or "")
    assert not (tmp_path / "it ran").exists()


def test_pickles_beside_safetensors_are_never_read(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Marker(tmp_path / "it ran")))
    load(folder)
    assert not (tmp_path / "it ran").exists()


def test_no_weights_at_all(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(PreconditionError, match=r"no \*\.safetensors weights"):
        located(folder)


CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({mark!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def with_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with code of its own, which leaves the file `it ran` when it runs."""
    (folder / "own.py").write_text(CODE.format(mark=str(tmp_path / "it ran")))
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    change_config(folder, model_type="own_llama", auto_map=classes, architectures=["OwnModel"])
    # transformers puts the folder for such code on sys.path when it is first asked for it.
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


def test_code_of_its_own_is_refused(with_code: Path, tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="its own Python code") as caught:
        located(with_code)
    assert caught.value.exit_code == 3
    assert "--trust-remote-code" in (caught.value.hint or "")
    assert not (tmp_path / "it ran").exists()


def test_code_of_a_tokenizer_is_refused(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoTokenizer": ["own.Own", None]}}))
    with pytest.raises(PreconditionError, match="its own Python code"):
        located(folder)
    assert located(folder, trust_remote_code=True).folder == folder


def test_code_of_its_own_runs_when_trusted(with_code: Path, tmp_path: Path) -> None:
    found = located(with_code, trust_remote_code=True)
    assert not (tmp_path / "it ran").exists()
    model = load_model(found, dtype=torch.float32, trust_remote_code=True, console=QUIET)
    assert type(model).__name__ == "OwnModel"
    assert (tmp_path / "it ran").exists()


@pytest.mark.parametrize("keep", [0.99, 0.5, 0.0])
def test_truncated_weights_are_named(folder: Path, keep: float) -> None:
    weights = folder / "model.safetensors"
    os.truncate(weights, int(weights.stat().st_size * keep))
    with pytest.raises(PreconditionError, match="is damaged") as caught:
        located(folder)
    assert str(weights) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_model("llama", 300, hidden=64).save_pretrained(folder, max_shard_size="50KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(PreconditionError, match=shard.name):
        located(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": '])
def test_a_damaged_configuration(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(PreconditionError, match=r"config\.json"):
        located(folder)


def test_missing_weights_would_be_random(folder: Path) -> None:
    change_weights(folder, **{"model.layers.1.mlp.up_proj.weight": None})
    found = located(folder)
    with pytest.raises(PreconditionError, match=r"lacks weights \(1, such as model.layers.1.mlp.up_proj.weight\)"):
        load_model(found, dtype=torch.float32, console=QUIET)


def test_a_model_without_its_head_is_refused(folder: Path) -> None:
    change_weights(folder, **{"lm_head.weight": None})
    with pytest.raises(PreconditionError, match="lm_head"):
        load(folder)


def test_a_head_that_is_tied_is_not_missing(tmp_path: Path) -> None:
    saved = save_model_folder(tmp_path / "model", tiny_model("gpt2", 300), None)
    assert "lm_head.weight" not in load_file(saved / "model.safetensors")
    load(saved)


def test_weights_of_another_shape(folder: Path) -> None:
    change_config(folder, intermediate_size=128)
    with pytest.raises(PreconditionError) as caught:
        load(folder)
    assert "\n" not in caught.value.message


def test_a_configuration_that_makes_no_model_is_one_line(folder: Path) -> None:
    change_config(folder, hidden_act=None)
    with pytest.raises(PreconditionError, match="cannot be loaded from") as caught:
        load(folder)
    assert "\n" not in caught.value.message


def test_weights_that_are_not_used_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_weights(folder, **{"model.extra.weight": torch.zeros(2)})
    load_model(located(folder), dtype=torch.float32, console=Console())
    assert "1 weights are not used (such as model.extra.weight)" in capsys.readouterr().err


def test_encoder_decoders_are_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=40, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    with pytest.raises(UsageError, match="encoder-decoder"):
        located(tmp_path / "t5")


def test_a_model_type_that_is_no_name_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    folder = save_model_folder(tmp_path / "model", tiny_model("gpt2", len(tokenizer)), tokenizer)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": ["gpt2"]}))
    with pytest.raises(PreconditionError, match="model_type is no name"):
        located(folder)


def test_masked_language_models_are_refused(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(UsageError, match="not a causal language model"):
        located(tmp_path / "bert")


@pytest.mark.parametrize("kind", ["vit", "nobody_knows_this"])
def test_no_language_model_at_all(folder: Path, kind: str) -> None:
    change_config(folder, model_type=kind, architectures=["SomethingElse"])
    with pytest.raises(UsageError, match="no causal language model: SomethingElse"):
        load(folder)


@pytest.mark.parametrize("content", ["", "{}", '{"version": "1.0", "model": {"type": "Nothing"}}'])
def test_a_damaged_tokenizer(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(PreconditionError, match="the tokenizer of") as caught:
        load_tokenizer(located(folder))
    assert "\n" not in caught.value.message


def test_the_fingerprint_follows_what_counts(folder: Path) -> None:
    first = located(folder).fingerprint()
    (folder / "README.md").write_text("words")
    assert located(folder).fingerprint() == first
    change_weights(folder, **{"model.norm.weight": torch.full((32,), 2.0)})
    second = located(folder).fingerprint()
    assert second != first
    change_config(folder, rope_theta=5.0)
    third = located(folder).fingerprint()
    assert len({first, second, third}) == 3
