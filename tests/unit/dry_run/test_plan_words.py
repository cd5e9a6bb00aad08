"""The plan in words: what a newcomer reads, from the figures that scripts read."""

from __future__ import annotations

from typing import Any

import pytest

from distillkit.dry_run.plan_words import count_words, duration_words, plan_rows

ESTIMATE: dict[str, Any] = {
    "device": "cpu, bf16", "teacher_parameters": 1_557_611_200, "student_parameters": 13_000_000,
    "texts": "prepared", "training_tokens_at_most": 512_000, "optimizer_steps_at_most": 250, "teacher_cache": "exact: 1.6 GB for 256,000 tokens",
    "teacher_streaming": "off: its weights take 3.1 GB", "compiled_loss": "off: few logits", "control": "on: --control",
    "refused": None, "disk_bytes": 2_800_000_000, "teacher_cache_bytes": 1_600_000_000, "disk_free_bytes": 105_000_000_000,
    "memory_bytes": 3_200_000_000, "memory_free_bytes": 21_000_000_000, "phases": {"training": 570.0, "control": 354.4},
    "total_seconds": 924.4,
}  # fmt: skip


def rows(**changes: Any) -> dict[str, str]:
    return dict(plan_rows({**ESTIMATE, **changes}, teacher="gpt2-xl", student="small"))


def test_a_plan_reads_like_a_plan() -> None:
    shown = rows()
    assert shown["teacher"] == "gpt2-xl, 1.56 billion parameters"
    assert shown["student"] == "small, 13 million parameters"
    assert shown["training"] == "at most 250 steps, 512,000 tokens"
    assert shown["the teacher reads"] == "once, all of its results are kept: 1.6 GB for 256,000 tokens"
    assert shown["also without the teacher"] == "yes: --control"
    assert shown["memory"] == "3.2 of 21.0 GB free"
    assert shown["disk"] == "2.8 of 105 GB free, 1.6 GB of it for the teacher's results"
    assert shown["time"] == "about 15 min"
    assert shown["  training"] == "about 10 min"
    assert "loss compiled" not in shown
    assert "texts" not in shown, "they are prepared"
    assert rows(texts="not looked at")["texts"].startswith("not looked at yet")
    assert not [what for what in shown if "bytes" in what or "_" in what]


def test_what_does_not_fit_and_what_is_refused_is_said() -> None:
    shown = rows(memory_bytes=24_000_000_000, disk_bytes=950_000_000, refused="the disk is full; free some space")
    assert shown["memory"] == "24.0 GB, but only 21.0 GB free"
    assert shown["disk"].startswith("950 MB of 105 GB free")
    assert next(iter(shown)) == "this would stop at once"
    assert shown["this would stop at once"] == "the disk is full; free some space"


def test_what_is_not_known_before_the_models_are_here() -> None:
    nothing = {"teacher_parameters": None, "student_parameters": None, "memory_bytes": None, "disk_bytes": None}
    shown = rows(**nothing, teacher_cache=None, teacher_streaming=None, phases=None, total_seconds=None)
    unknown = "not known before the models are here"
    assert [shown[what] for what in ("teacher", "student", "memory", "time")] == [
        f"gpt2-xl, {unknown}", f"small, {unknown}", f"{unknown}; 21.0 GB free", unknown,
    ]  # fmt: skip
    assert "the teacher reads" not in shown


def test_a_server_is_asked() -> None:
    asked = {"server_requests_at_most": 900, "server_prompt_tokens_at_most": 115_200, "teacher_parameters": None}
    shown = rows(**asked, server_completion_tokens_at_most=230_000, answers_of_each_model_at_most=24)
    assert shown["asked of the server"] == "at most 900 requests, 115,200 tokens sent, 230,000 written"
    assert shown["answers that are measured"] == "at most 24 of each model"
    assert "teacher" not in shown
    assert rows(**asked)["asked of the server"] == "at most 900 requests, 115,200 tokens sent"


def test_a_run_that_is_complete_takes_no_time() -> None:
    assert rows(phases={}, total_seconds=0.0)["time"] == "none, nothing is left to do"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "less than 1 s"), (40, "about 40 s"), (89.4, "about 89 s"), (90, "about 2 min"), (924, "about 15 min"),
     (5340, "about 89 min"), (12_000, "about 3 h 20 min"), (10_800, "about 3 h"), (360_100, "about 100 h")],
)  # fmt: skip
def test_durations(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


def test_counts() -> None:
    assert [count_words(count) for count in (950, 45_952, 135_000_000, 1_557_600_000, 70_600_000_000)] == [
        "950", "45,952", "135 million", "1.56 billion", "70.6 billion",
    ]  # fmt: skip
