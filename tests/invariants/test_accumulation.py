"""8 × 1, 2 × 4 and 1 × 8 are one training: the same examples in every step, and the same student apart from rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bare_runs import loss_lines, relative_difference
from settings_file import bare_settings
from tiny_models import save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer, write_texts

from distillkit.cli import main as cli
from distillkit.data import batching
from distillkit.storage import read_json

SPLITS = ((8, 1), (2, 4), (1, 8))
# 21 are no multiple of 8: the last step of an epoch is smaller, in whichever micro-batches it is computed.
EXAMPLES, EPOCHS = 21, 2
SETTINGS: dict[str, Any] = {
    "sample_size": EXAMPLES, "max_length": 40, "held_out_size": 4, "epochs": EPOCHS, "checkpoint_interval": 100,
    "learning_rate": 1e-3,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "one tokenizer": {},
    "two tokenizers": {"teacher_model_path": "other"},
    "black box": {"box_type": "black", "teacher_model_path": "writer", "sample_size": 24, "teacher_cache": "off"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accumulation")
    tokenizer, other = tiny_tokenizer(384), tiny_tokenizer(300, bos="<s>")
    save_model_folder(folder / "teacher", tiny_model("gpt2", 384, layers=1, hidden=16, seed=1), tokenizer)
    save_model_folder(folder / "other", tiny_model("llama", 300, layers=1, hidden=16, seed=3), other)
    save_model_folder(folder / "student", tiny_model("gpt2", 384, layers=1, hidden=16, seed=2), tokenizer)
    save_model_folder(folder / "writer", teacher_of_letters(tokenizer, seed=4), tokenizer)
    write_texts(folder / "texts.txt", 110, sentences=2)
    return folder


def trained(models: Path, kind: str, batch: int, accumulation: int, output: Path) -> Path:
    """The run of `distillkit distill` in these micro-batches."""
    changes = dict(KINDS[kind])
    teacher = models / changes.pop("teacher_model_path", "teacher")
    name = f"{batch}x{accumulation}"
    settings = bare_settings(models, output, name, **{**SETTINGS, **changes, "teacher_model_path": teacher})
    split = ["--batch-size", str(batch), "--gradient-accumulation", str(accumulation)]
    assert cli.main(["distill", "--config", str(settings), "--quiet", *split]) == 0
    return output / name


def tokens(run: Path) -> list[int]:
    """Target tokens after each step."""
    return [line["tokens"] for line in loss_lines(run)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_split_of_a_step_changes_nothing(models: Path, tmp_path: Path, kind: str) -> None:
    whole, *parts = [trained(models, kind, *split, tmp_path) for split in SPLITS]
    wanted = tokens(whole)
    if kind != "black box":
        assert len(wanted) == -(-EXAMPLES // 8) * EPOCHS
    else:
        assert read_json(whole / "metrics.json")["train"]["steps"] == len(wanted) > 6
    for part in parts:
        assert tokens(part) == wanted
        # Sums are added up in another order.
        assert relative_difference(part, whole, models / "student") < 1e-4


def test_batches_grouped_by_themselves_would_be_another_training(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: the same examples in the order of 4 × 2 and of 2 × 4 if micro-batches were grouped alone."""
    whole = trained(models, "one tokenizer", 8, 1, tmp_path)
    begin = batching.LengthGroupedSampler.__init__

    def by_micro_batch(self: Any, lengths: Any, step_examples: int, seed: int) -> None:
        begin(self, lengths, step_examples // 4, seed)

    monkeypatch.setattr(batching.LengthGroupedSampler, "__init__", by_micro_batch)
    part = trained(models, "one tokenizer", 2, 4, tmp_path)
    assert tokens(part) != tokens(whole)
    assert relative_difference(part, whole, models / "student") > 0.05
