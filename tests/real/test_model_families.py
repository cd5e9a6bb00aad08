"""Every supported family as teacher and as student, and tokenizers that lack what others have: the same pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TRAINING_SENTENCES, save_model_folder, tiny_model, tiny_tokenizer, write_texts

from distillkit import PreconditionError, distill_models

pytestmark = pytest.mark.real

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl", 150, sentences=2)


@pytest.fixture
def distilled(tmp_path: Path, texts: Path) -> Run:
    """`distilled(teacher_folder, student, …)` -> the result of some ten steps."""

    def run(teacher: Path, student: Path | str, **parameters: Any) -> Any:
        settings = {
            "control": False, "sample_size": 40, "held_out_size": 20, "max_length": 64, "epochs": 1, "batch_size": 4,
            "learning_rate": 2e-3, "allow_out_of_range": True, "no_cuda": True, "save_plot": False, "output_dir": str(tmp_path / "output"),
        }  # fmt: skip
        names = {"student_model": student} if isinstance(student, str) else {"student_model_path": str(student)}
        return distill_models(
            teacher_model_path=str(teacher), dataset_path=str(texts), quiet=True, **names, **settings | parameters
        )

    return run


def make_folder(path: Path, family: str, *, vocab: int = 384, layers: int = 2, seed: int = 0, **special: Any) -> Path:
    """A model with a tokenizer of its own; tokenizers of the same size have the same tokens."""
    return save_model_folder(
        path, tiny_model(family, vocab, layers=layers, seed=seed), tiny_tokenizer(vocab, **special)
    )


def loads_and_writes(folder: Path) -> str:
    """The type of a student's model, after transformers alone has loaded it and continued a text with it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer("In the harbour", return_tensors="pt", return_token_type_ids=False)
    # The end-of-text token may come at once.
    written = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
    assert written.shape[1] == inputs["input_ids"].shape[1] + 4
    return model.config.model_type


def check(result: Any, *, same_tokenizer: bool) -> dict[str, Any]:
    """What every run has in common; returns stats.json."""
    assert result.verdict == "improved"
    assert result.after["bits_per_byte"] < result.before["bits_per_byte"]
    assert result.metrics["train"]["steps"] == 10
    stats = json.loads((result.run_directory / "data" / "stats.json").read_text(encoding="utf-8"))
    assert stats["same_tokenizer"] is same_tokenizer
    assert ("alignment" in stats) is not same_tokenizer
    return stats


@pytest.mark.parametrize(
    ("teacher", "student"),
    [("gpt2", "llama"), ("llama", "gpt_neox"), ("gpt_neox", "gpt2"), ("qwen2", "gpt2"), ("gpt2", "qwen2")],
)
def test_families_across_tokenizers(tmp_path: Path, distilled: Run, teacher: str, student: str) -> None:
    teacher_folder = make_folder(tmp_path / "teacher", teacher, vocab=384)
    student_folder = make_folder(tmp_path / "student", student, vocab=300, layers=1, seed=1)
    result = distilled(teacher_folder, student_folder)
    stats = check(result, same_tokenizer=False)
    assert stats["alignment"]["positions_aligned"] > 0.5
    assert result.after["teacher_kl"] is not None
    assert loads_and_writes(result.student_path) == student


@pytest.mark.parametrize(("teacher", "student"), [("llama", "gpt2"), ("gpt2", "gpt_neox")])
def test_families_with_one_tokenizer(tmp_path: Path, distilled: Run, teacher: str, student: str) -> None:
    teacher_folder = make_folder(tmp_path / "teacher", teacher)
    student_folder = make_folder(tmp_path / "student", student, layers=1, seed=1)
    result = distilled(teacher_folder, student_folder)
    check(result, same_tokenizer=True)
    assert loads_and_writes(result.student_path) == student


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gpt_neox"])
def test_the_teacher_with_fewer_layers(tmp_path: Path, distilled: Run, family: str) -> None:
    teacher = make_folder(tmp_path / "teacher", family, layers=3)
    result = distilled(teacher, "teacher:1")
    check(result, same_tokenizer=True)
    assert result.before["parameters"] < result.teacher["parameters"]
    assert result.after["parameters"] == result.before["parameters"]
    assert loads_and_writes(result.student_path) == family
    config = json.loads((result.student_path / "config.json").read_text(encoding="utf-8"))
    assert next(config[name] for name in ("num_hidden_layers", "n_layer") if name in config) == 1


def teach_letters(folder: Path, texts: Path) -> None:
    """Train a model for a moment: a random one would write bytes that spell nothing."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    lines = texts.read_text(encoding="utf-8").splitlines()
    ids = torch.tensor([tokenizer(json.loads(line)["text"])["input_ids"][:40] for line in lines])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(30):
        batch = ids[step % 5 :: 5]
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)


@pytest.mark.parametrize(("box_type", "student_vocab"), [("white", 384), ("white", 300), ("black", 300)])
def test_tokenizers_without_bos_eos_and_pad(
    tmp_path: Path, distilled: Run, texts: Path, student_vocab: int, box_type: str
) -> None:
    teacher = make_folder(tmp_path / "teacher", "gpt_neox", eos=None)
    if box_type == "black":
        teach_letters(teacher, texts)
    student = make_folder(tmp_path / "student", "llama", vocab=student_vocab, eos=None, layers=1, seed=1)
    result = distilled(teacher, student, box_type=box_type)
    stats = json.loads((result.run_directory / "data" / "stats.json").read_text(encoding="utf-8"))
    assert stats["same_tokenizer"] is (student_vocab == 384)
    assert result.verdict == "improved"
    tokenizer = json.loads((result.student_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert not {"bos_token", "eos_token", "pad_token"} & {name for name, value in tokenizer.items() if value}
    assert loads_and_writes(result.student_path) == "llama"


def test_only_one_of_the_two_has_special_tokens(tmp_path: Path, distilled: Run) -> None:
    teacher = make_folder(tmp_path / "teacher", "gpt2", bos="<s>", eos="</s>", pad="<pad>")
    student = make_folder(tmp_path / "student", "gpt_neox", vocab=300, eos=None, layers=1, seed=1)
    check(distilled(teacher, student), same_tokenizer=False)


def wordpiece_folder(path: Path, *, layers: int = 1, seed: int = 0) -> Path:
    """A Llama with a lower-casing WordPiece tokenizer, as BERT's: its tokens do not spell the text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=250, special_tokens=["[PAD]", "[UNK]", "[SEP]"], show_progress=False)
    backend.train_from_iterator(TRAINING_SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", eos_token="[SEP]"
    )
    return save_model_folder(path, tiny_model("llama", len(tokenizer), layers=layers, seed=seed), tokenizer)


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_wordpiece_in_black_box(tmp_path: Path, distilled: Run, texts: Path, who: str) -> None:
    wordpiece, other = wordpiece_folder(tmp_path / "wordpiece"), make_folder(tmp_path / "other", "gpt2")
    if who == "student":
        teach_letters(other, texts)
    teacher, student = (other, wordpiece) if who == "student" else (wordpiece, other)
    result = distilled(teacher, student, box_type="black")
    assert result.verdict == "improved"
    assert "teacher_kl" not in result.after
    stats = json.loads((result.run_directory / "data" / "stats.json").read_text(encoding="utf-8"))
    assert stats["splits"]["train"]["examples"] == 40
    assert (result.run_directory / "teacher" / "generated.jsonl").stat().st_size
    assert loads_and_writes(result.student_path) == ("llama" if who == "student" else "gpt2")


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_wordpiece_in_white_box_is_refused(tmp_path: Path, distilled: Run, who: str) -> None:
    wordpiece, other = wordpiece_folder(tmp_path / "wordpiece"), make_folder(tmp_path / "other", "gpt2")
    teacher, student = (other, wordpiece) if who == "student" else (wordpiece, other)
    with pytest.raises(PreconditionError) as caught:
        distilled(teacher, student)
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message
    assert "--box-type black" in (caught.value.hint or "")
