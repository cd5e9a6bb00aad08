"""Two teachers with real tokenizers, GPT-2's and a Llama-family SentencePiece, of a student that reads neither's tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from settings_file import settings_file
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer, write_texts

pytestmark = pytest.mark.real


def test_a_whole_run(
    run_cli: Callable[..., Any],
    gpt2_tokenizer: Any,
    sentencepiece_32k_tokenizer: Any,
    tmp_path: Path,
) -> None:
    small = {"layers": 1, "hidden": 8}
    first = save_model_folder(tmp_path / "first", tiny_model("gpt2", 50257, seed=1, **small), gpt2_tokenizer)
    second = save_model_folder(
        tmp_path / "second", tiny_model("llama", 32000, seed=2, **small), sentencepiece_32k_tokenizer
    )
    own = tiny_tokenizer(384)
    student = save_model_folder(tmp_path / "student", tiny_model("llama", 384, seed=3, **small), own)
    settings = settings_file(
        tmp_path, teacher_model_path=first, extra_teachers=second, teacher_weights="3,1", student_model_path=student,
        dataset_path=write_texts(tmp_path / "texts.txt", 60), output_dir=tmp_path, folder_name="run", sample_size=12,
        max_length=96, held_out_size=6, batch_size=4, epochs=1, learning_rate=1e-3, precision="fp32", teacher_cache="exact",
        allow_out_of_range=True, control=False, save_plot=False, skip_demo=True, skip_validation=True, no_cuda=True,
    )  # fmt: skip
    found = json.loads(run_cli("distill", "--config", settings, "--json", check=0).stdout)["result"]["metrics"]
    run = tmp_path / "run"
    stats = json.loads((run / "data" / "stats.json").read_text(encoding="utf-8"))
    assert (stats["same_tokenizer"], stats["extra_teachers"][0]["same_tokenizer"]) == (False, False)
    assert stats["extra_teachers"][0]["unread"] == {"train": 0, "test": 0}
    assert 0.9 < stats["guided"]["all"] <= stats["guided"]["any"] <= 1
    passed = found["teacher_pass"]["teachers"]
    assert [one["weight"] for one in passed] == [0.75, 0.25]
    assert all(one["tokens"] > 0 and one["cached_tokens"] == 0 for one in passed)
    assert 0.9 < found["alignment"]["mass_mapped"] <= 1
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(line["soft_loss"] > 0 for line in lines if "loss" in line)
