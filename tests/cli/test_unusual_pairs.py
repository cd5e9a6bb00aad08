"""Whole runs of pairs in which something does not fit: rows, contexts, number formats, settings, files beside the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file, save_file
from tiny_models import save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer, write_texts
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, RobertaConfig, RobertaForCausalLM

from distillkit import PreconditionError, distill_models

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def run(small: dict[str, Any], offline: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(teacher, student, **settings)` -> `said`, the run's `folder`, its exported `student`, its `result`."""
    texts = write_texts(tmp_path / "texts.jsonl", 60, sentences=6)

    def distil(teacher: Path, student: Path | str, **settings: Any) -> SimpleNamespace:
        named = {"student_model": student} if isinstance(student, str) else {"student_model_path": str(student)}
        values = {
            "teacher_model_path": str(teacher), **named, "dataset_path": str(texts), "output_dir": str(tmp_path / "out"),
            "folder_name": "run", **small, "install_deps": False, "save_plot": False, **settings,
        }  # fmt: skip
        result = distill_models(**values)
        folder = tmp_path / "out" / values["folder_name"]
        student = folder / "student" / "best"
        return SimpleNamespace(said=capsys.readouterr().err, folder=folder, student=student, result=result)

    return distil


def model_folder(path: Path, family: str = "gpt2", *, tokenizer: Any = None, rows: int = 384, **settings: Any) -> Path:
    """A model of `rows` rows; its tokenizer may have more."""
    model = tiny_model(family, rows, **settings)
    model.save_pretrained(path)
    (tokenizer or tiny_tokenizer()).save_pretrained(path)
    return path


def change(path: Path, **values: Any) -> None:
    """Set (or with None take away) values in a JSON file."""
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def with_token(**added: Any) -> Any:
    tokenizer = tiny_tokenizer()
    if "text" in added:
        tokenizer.add_tokens([added["text"]])
    if "pad" in added:
        tokenizer.add_special_tokens({"pad_token": added["pad"]})
    if "bos" in added:
        tokenizer.add_special_tokens({"bos_token": added["bos"]})
    assert len(tokenizer) == 385
    return tokenizer


# --- ids without a row -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("added", "words"),
    [({"bos": "<s>"}, "id 384 ('<s>', its beginning-of-text token) has no row"), ({"text": "kettle"}, "'kettle', in ")],
)
def test_a_teacher_that_cannot_read_is_refused(tmp_path: Path, run: Run, added: dict[str, str], words: str) -> None:
    teacher = model_folder(tmp_path / "teacher", tokenizer=with_token(**added))
    with pytest.raises(PreconditionError) as caught:
        run(teacher, model_folder(tmp_path / "student"))
    assert "the teacher's tokenizer has 385 tokens, its embedding 384 rows" in caught.value.message
    assert words in caught.value.message


@pytest.mark.parametrize(("added", "family"), [({"bos": "<s>"}, "gpt2"), ({"text": "kettle"}, "llama")])
def test_a_student_gets_rows(tmp_path: Path, run: Run, added: dict[str, str], family: str) -> None:
    student = model_folder(tmp_path / "student", family, tokenizer=with_token(**added))
    done = run(model_folder(tmp_path / "teacher"), student, skip_validation=False, skip_demo=False)
    assert "its embedding 384 rows" in done.said
    assert "1 row like the mean of the others is added" in done.said
    assert json.loads((done.folder / "data" / "models.json").read_text())["student"]["rows"] == 385
    assert json.loads((done.student / "config.json").read_text())["vocab_size"] == 385
    exported = AutoModelForCausalLM.from_pretrained(done.student)
    assert exported.get_input_embeddings().weight.shape[0] == exported.lm_head.weight.shape[0] == 385
    assert len(AutoTokenizer.from_pretrained(done.student)) == 385


def test_padding_that_no_text_has_does_no_harm(tmp_path: Path, run: Run) -> None:
    """As Llama with [PAD] added: neither model is changed, and what computes leaves the row out."""
    teacher, student = (model_folder(tmp_path / name, "llama", tokenizer=with_token(pad="[PAD]")) for name in "ts")
    done = run(teacher, student, skip_validation=False, skip_demo=False)
    assert done.said.count("id 384 ('[PAD]') has no row; that does no harm") == 2
    assert json.loads((done.student / "config.json").read_text()) == json.loads((student / "config.json").read_text())


def test_padding_of_the_configuration_beyond_the_embedding(tmp_path: Path, run: Run) -> None:
    """With it transformers cannot even build the model: a teacher does without, a student is resized."""
    teacher, student = (model_folder(tmp_path / name, "llama", tokenizer=with_token(pad="[PAD]")) for name in "ts")
    for folder in (teacher, student):
        change(folder / "config.json", pad_token_id=384)
    done = run(teacher, student)
    exported = AutoModelForCausalLM.from_pretrained(done.student)
    assert (exported.config.vocab_size, exported.config.pad_token_id) == (385, 384)


# --- the context -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box_type", ["white", "black"])
def test_a_teacher_with_a_short_context(tmp_path: Path, run: Run, box_type: str) -> None:
    tokenizer = tiny_tokenizer()
    model = teacher_of_letters(tokenizer)
    short = tiny_model("gpt2", len(tokenizer), layers=1, hidden=16, context=40, tie_word_embeddings=False)
    weights = {**model.state_dict(), "transformer.wpe.weight": short.state_dict()["transformer.wpe.weight"]}
    short.load_state_dict(weights)
    teacher = save_model_folder(tmp_path / "teacher", short, tokenizer)
    done = run(teacher, model_folder(tmp_path / "student"), box_type=box_type, skip_validation=False, skip_demo=False)
    assert "the teacher's context is 40 tokens: examples are cut to it" in done.said
    for part in ("train", "validation", "test"):
        assert max(len(ids) for ids in load_from_disk(done.folder / "data" / part)["student_ids"]) <= 40


def test_positions_behind_the_padding(tmp_path: Path, run: Run) -> None:
    tokenizer = tiny_tokenizer(pad="<pad>")
    config = RobertaConfig(
        vocab_size=384, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, is_decoder=True,
        max_position_embeddings=34, pad_token_id=1, bos_token_id=0, eos_token_id=0, type_vocab_size=1,
    )  # fmt: skip
    teacher = save_model_folder(tmp_path / "teacher", RobertaForCausalLM(config), tokenizer)
    done = run(teacher, model_folder(tmp_path / "student"), skip_validation=False)
    assert "the teacher's context is 32 tokens" in done.said


# --- quantised -------------------------------------------------------------------------------------------------------


def quantise(folder: Path, **settings: Any) -> Path:
    change(folder / "config.json", **settings)
    return folder


def test_a_quantised_student_is_refused(tmp_path: Path, run: Run) -> None:
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    student = quantise(model_folder(tmp_path / "student"), quantization_config=settings)
    with pytest.raises(PreconditionError, match=r"\(bitsandbytes, 4 bits\): such weights cannot be trained"):
        run(model_folder(tmp_path / "teacher"), student)
    with pytest.raises(PreconditionError, match=r"\(bitsandbytes, 4 bits\): its layers cannot become a student"):
        run(student, "teacher:1", folder_name="cut")
    assert not list((tmp_path / "out").glob("*/data"))


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_weights_that_are_quantised_without_a_word(tmp_path: Path, run: Run, role: str) -> None:
    folders = {name: model_folder(tmp_path / name) for name in ("teacher", "student")}
    file = folders[role] / "model.safetensors"
    weights = load_file(file)
    weights["transformer.h.0.mlp.c_fc.qweight"] = torch.zeros(4, 4, dtype=torch.int32)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(PreconditionError, match=r"is quantised \(transformer.h.0.mlp.c_fc.qweight is stored as I32\)"):
        run(folders["teacher"], folders["student"])


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq"])
def test_a_quantised_teacher_that_cannot_be_loaded_is_one_line(tmp_path: Path, run: Run, method: str) -> None:
    settings: dict[str, Any] = {"quant_method": method, "bits": 4}
    settings |= {"load_in_4bit": True} if method == "bitsandbytes" else {}
    teacher = quantise(model_folder(tmp_path / "teacher"), quantization_config=settings)
    # Without its library, or with it on a machine that it cannot use.
    with pytest.raises(
        PreconditionError, match=rf"is quantised \({method}, 4 bits\)(: that needs| and cannot be loaded)"
    ):
        run(teacher, model_folder(tmp_path / "student"))


@pytest.fixture
def few_bits(tmp_path: Path) -> Path:
    """A model of bitsandbytes in 4 bits, whose embedding, norms and head are stored in fp32."""
    pytest.importorskip("bitsandbytes")
    model_folder(tmp_path / "whole", "llama", hidden=64, seed=1)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "whole",
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        dtype=torch.float32,
    )
    model.save_pretrained(tmp_path / "few-bits")
    tiny_tokenizer().save_pretrained(tmp_path / "few-bits")
    return tmp_path / "few-bits"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cache", ["exact", "sparse", "off"])
def test_a_teacher_of_few_bits_computes_in_the_format_of_the_run(
    tmp_path: Path, run: Run, few_bits: Path, cache: str
) -> None:
    """From its cache through validation: transformers leaves what is not quantised in the format of the file."""
    done = run(
        few_bits, model_folder(tmp_path / "student", "llama"), precision="bf16", teacher_cache=cache, epochs=2,
        skip_validation=False, skip_demo=False,
    )  # fmt: skip
    scored = json.loads((done.folder / "validation.json").read_text())
    assert scored["teacher"]["generated_tokens_per_second"] > 0


@pytest.mark.filterwarnings("ignore")
def test_a_student_of_few_bits_learns_by_an_adapter(tmp_path: Path, run: Run, few_bits: Path) -> None:
    """Scored at the beginning, after which bitsandbytes gave no gradients on a CPU with bf16 instructions."""
    teacher = model_folder(tmp_path / "teacher", "llama", seed=2)
    done = run(teacher, few_bits, adapter="lora", learning_rate=0.02, epochs=2, checkpoint_interval=2)
    scores = [at["bits_per_byte"] for at in json.loads((done.folder / "metrics.json").read_text())["held_out"]]
    assert min(scores[1:]) < scores[0]
    assert "quantization_config" not in json.loads((done.student / "config.json").read_text())


# --- settings and files beside the weights ---------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", ["off", "on"])
def test_settings_of_forward_change_nothing(tmp_path: Path, run: Run, streaming: str) -> None:
    plain = [model_folder(tmp_path / name, "llama", seed=seed) for seed, name in enumerate(("teacher", "student"))]
    values = {"skip_validation": False, "teacher_streaming": streaming, "teacher_cache": "exact"}
    expected = load_file(run(*plain, folder_name="plain", **values).student / "model.safetensors")
    settings = {"return_dict": False, "output_attentions": True, "_attn_implementation": "flash_attention_2"}
    for folder in plain:
        change(folder / "config.json", **settings)
    done = run(*plain, skip_demo=False, **values)
    assert all(
        torch.equal(expected[name], value) for name, value in load_file(done.student / "model.safetensors").items()
    )
    kept = json.loads((done.student / "config.json").read_text())
    assert {name: kept[name] for name in settings} == settings


def test_an_adapter_beside_the_weights(tmp_path: Path, run: Run) -> None:
    teacher, student = model_folder(tmp_path / "teacher"), model_folder(tmp_path / "student")
    for folder in (teacher, student):
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "some/base"}')
        save_file({"a": torch.zeros(1)}, folder / "adapter_model.safetensors")
    done = run(teacher, student)
    assert (
        done.said.count("an adapter lies beside its weights (adapter_config.json): it is not put on top of them") == 2
    )
    assert not list(done.student.glob("adapter_*"))


# --- what the student's folder holds ---------------------------------------------------------------------------------

_BESIDE = {
    "LICENSE": "do as you like", "NOTICE.txt": "made by us", "chat_template.jinja": "{{ messages }}",
    "generation_config.json": '{"temperature": 0.5, "do_sample": false, "return_dict_in_generate": true}',
    "special_tokens_map.json": '{"eos_token": "<|endoftext|>"}', "added_tokens.json": "{}", "tokenizer.model": "pieces",
}  # fmt: skip
_LEFT = ("pytorch_model.bin", "model.onnx", "tf_model.h5", "training_args.bin", "optimizer.pt", "model.gguf", "x.jsonl")


@pytest.mark.parametrize("student", [None, "teacher:1"])
def test_the_folder_of_a_student_is_that_of_its_origin(tmp_path: Path, run: Run, student: str | None) -> None:
    origin = model_folder(tmp_path / "origin", "llama")
    for name, text in _BESIDE.items():
        (origin / name).write_text(text)
    for name in _LEFT:
        (origin / name).write_bytes(b"old")
    (origin / "additional_chat_templates").mkdir()
    (origin / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    change(origin / "config.json", torch_dtype="bfloat16", dtype=None, authors_own="field", _name_or_path=str(tmp_path))
    change(origin / "tokenizer_config.json", is_local=True, local_files_only=True, add_bos_token=False)
    teacher = origin if student else model_folder(tmp_path / "teacher", seed=4)
    done = run(teacher, student or origin, skip_validation=False, skip_demo=False)
    here = {path.relative_to(done.student).as_posix() for path in done.student.rglob("*") if path.is_file()}
    assert here == {
        *_BESIDE, "additional_chat_templates/tools.jinja", "config.json", "model.safetensors", "README.md", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    for name in (*_BESIDE, "tokenizer.json", "additional_chat_templates/tools.jinja"):
        assert (done.student / name).read_bytes() == (origin / name).read_bytes()
    config, own = (json.loads((folder / "config.json").read_text()) for folder in (done.student, origin))
    changed = {"torch_dtype": "float32"} | ({"num_hidden_layers": 1} if student else {})
    assert config == {name: value for name, value in {**own, **changed}.items() if name != "_name_or_path"}
    kept = json.loads((done.student / "tokenizer_config.json").read_text())
    assert kept["add_bos_token"] is False
    assert not {"is_local", "local_files_only"} & set(kept)
    recorded = json.loads((done.folder / "manifest.json").read_text())["stages"]["distill"]["outputs"]
    assert any(record["path"] == "student/best/LICENSE" for record in recorded)


def test_a_student_without_settings_for_writing_gets_none(tmp_path: Path, run: Run) -> None:
    student = model_folder(tmp_path / "student")
    (student / "generation_config.json").unlink()
    done = run(model_folder(tmp_path / "teacher"), student)
    assert not (done.student / "generation_config.json").exists()
    config, own = (json.loads((folder / "config.json").read_text()) for folder in (done.student, student))
    assert config == own
    assert own["use_cache"] is True
