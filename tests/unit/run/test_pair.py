"""How the models of a run read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer

from distillkit.console import Console
from distillkit.run import pair
from distillkit.settings.resolve import resolve

QUIET = Console(quiet=True)


@pytest.mark.parametrize(("student", "loaded"), [("teacher:1", 1), ("another", 2)])
def test_a_part_of_the_teacher_reads_with_the_teachers_tokenizer(
    student: str, loaded: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tiny_tokenizer(300)
    teacher, other = (
        save_model_folder(tmp_path / name, tiny_model("gpt2", len(tokenizer), layers=2, hidden=16), tokenizer)
        for name in ("teacher", "other")
    )
    named = {"student_model": student} if student == "teacher:1" else {"student_model_path": str(other)}
    config = resolve(
        {"teacher_model_path": str(teacher), "max_length": 64, "allow_out_of_range": True, **named}
    ).parameters
    calls: list[Any] = []
    real = pair.load_tokenizer
    monkeypatch.setattr(pair, "load_tokenizer", lambda located, **more: calls.append(located) or real(located, **more))
    encoders = pair.locate_pair(config, QUIET).text_encoders(config)
    assert len(calls) == loaded
    assert encoders.student.table == encoders.teacher.table
    assert encoders.student.limit < encoders.teacher.limit  # each keeps what is its own
    assert encoders.student.token_ids("a text") == encoders.teacher.token_ids("a text")
