"""Three planted teachers, of which the control has to tell which one helps: the student's own start, one whose words are
mixed up, and one that knows the language of the texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from settings_file import BARE
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer, write_texts

from distillkit import DistillResult, QualityGateError, distill_models

SETTINGS: dict[str, Any] = {
    **BARE,
    "sample_size": 32, "max_length": 64, "held_out_size": 24, "batch_size": 4, "epochs": 4, "learning_rate": 5e-3,
    "checkpoint_interval": 16, "temperature": 1.0, "alpha": 0.5, "control": True, "skip_validation": False, "quality_gate": "off",
}  # fmt: skip


def taught(tokenizer: Any, texts: Path, steps: int = 250) -> Any:
    """A model that has read many texts of the kind that the student has few of."""
    model = tiny_model("gpt2", len(tokenizer), layers=2, hidden=64, seed=1, eos_token_id=0, tie_word_embeddings=False)
    ids = [tokenizer(text)["input_ids"][:64] for text in texts.read_text("utf-8").split("\n\n")]
    ids = [text for text in ids if len(text) == 64]
    chooser = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(steps):
        batch = torch.tensor([ids[int(index)] for index in torch.randint(len(ids), (8,), generator=chooser)])
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`student`, `taught`, `mixed up` and `texts.txt`."""
    root, tokenizer = tmp_path_factory.mktemp("models"), tiny_tokenizer()
    save_model_folder(root / "student", tiny_model("gpt2", len(tokenizer), layers=1, hidden=32, seed=2), tokenizer)
    teacher = taught(tokenizer, write_texts(root / "many.txt", 400, seed=9))
    save_model_folder(root / "taught", teacher, tokenizer)
    head = teacher.get_parameter("lm_head.weight")
    mixed = torch.randperm(len(head), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        head.copy_(head[mixed].clone())
    save_model_folder(root / "mixed up", teacher, tokenizer)
    write_texts(root / "texts.txt", 120)
    return root


@pytest.fixture(scope="module")
def results(models: Path) -> dict[str, DistillResult]:
    """Each teacher's run."""
    return {
        teacher: distill_models(
            teacher_model_path=models / teacher, student_model_path=models / "student", quiet=True,
            dataset_path=models / "texts.txt", output_dir=models / "out", folder_name=teacher.replace(" ", "-"), **SETTINGS,
        )
        for teacher in ("student", "mixed up", "taught")
    }  # fmt: skip


def gain_of(result: DistillResult) -> dict[str, Any]:
    """The teacher's gain, which is what it says it is."""
    gain = result.teacher_gain
    assert gain is not None
    assert result.control is not None
    assert result.after is not None
    assert gain["bits_per_byte"] == result.control["bits_per_byte"] - result.after["bits_per_byte"]
    assert gain["ci95"][0] < gain["bits_per_byte"] < gain["ci95"][1]
    return gain


def test_a_teacher_that_is_the_students_own_start_has_no_gain(results: dict[str, DistillResult]) -> None:
    """The student improves all the same: without a control it would pass for a success."""
    result = results["student"]
    assert result.verdict == "improved"
    assert gain_of(result)["ci95"][0] < 0
    assert "the same training gains 0.79 bits per byte" in result.teacher_sentence
    assert "the student lost to its control" in result.teacher_sentence
    assert "try more text" in result.advice


def test_a_teacher_whose_words_are_mixed_up_does_harm(results: dict[str, DistillResult]) -> None:
    result = results["mixed up"]
    assert result.verdict == "improved"
    assert gain_of(result)["ci95"][1] < 0
    assert gain_of(result)["bits_per_byte"] < gain_of(results["student"])["bits_per_byte"]
    assert "the student lost to its control" in result.teacher_sentence


def test_a_teacher_that_knows_the_language_gains(results: dict[str, DistillResult]) -> None:
    result = results["taught"]
    assert gain_of(result)["ci95"][0] > 0
    assert result.gain is not None
    assert gain_of(result)["bits_per_byte"] < result.gain["bits_per_byte"]
    assert "is training on these texts and 0.0" in result.teacher_sentence
    assert result.teacher_sentence.endswith("the teacher")
    assert result.advice == ""


def test_the_control_is_the_same_whoever_teaches(results: dict[str, DistillResult]) -> None:
    found = {
        (result.run_directory / "control" / "student" / which / "model.safetensors").read_bytes()
        for result in results.values()
        for which in ("best", "final")
    }
    # The last step is the best.
    assert len(found) == 1
    assert len({result.control["bits_per_byte"] for result in results.values() if result.control}) == 1


def test_the_gate_goes_by_the_control_alone(results: dict[str, DistillResult]) -> None:
    with pytest.raises(QualityGateError, match="is worse than its control, trained without the teacher") as caught:
        distill_models(run=results["mixed up"].run_directory, quality_gate="better-than-control", quiet=True)
    assert caught.value.exit_code == 4
    distill_models(run=results["mixed up"].run_directory, quality_gate="improved", quiet=True)
    passed = distill_models(run=results["taught"].run_directory, quality_gate="better-than-control", quiet=True)
    assert passed.teacher_gain == results["taught"].teacher_gain
