"""The table at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit.run.directory import RunDirectory
from distillkit.run.results import DistillResult, read_result, result_table
from distillkit.settings.resolve import resolve


def figures(**more: Any) -> dict[str, Any]:
    return {"bits_per_byte": 1.5, "perplexity": 9.0, "parameters": 7, **more}


def test_whether_answers_stop_is_a_column_only_where_it_was_asked() -> None:
    plain = DistillResult(Path("run"), before=figures(), after=figures())
    columns, rows = result_table(plain)
    assert columns == ["", "bits per byte", "perplexity", "parameters"]
    assert rows == [["student before", "1.5000", 9.0, 7], ["student after", "1.5000", 9.0, 7]]
    asked = DistillResult(Path("run"), before=figures(), after=figures(answers={"asked": 24, "stopped": 18}))
    columns, rows = result_table(asked)
    assert columns[-1] == "answers that stop"
    assert [row[-1] for row in rows] == ["–", "18 of 24"]


def judged(ci95: list[float] | None, documents: int) -> DistillResult:
    gain = {"bits_per_byte": 0.3, "ci95": ci95}
    verdict = "inconclusive" if ci95 is None else "improved"
    return DistillResult(Path("run"), gain=gain, verdict=verdict, gap_closed=0.86, documents=documents)


def test_no_share_of_the_gap_without_an_interval() -> None:
    said = "inconclusive: 0.3000 bits per byte better than before, measured on "
    assert (
        judged(None, 1).verdict_words("en") == f"{said}one document: there is no interval, so this says next to nothing"
    )
    assert judged(None, 5).verdict_words("en").startswith(f"{said}5 documents: too few for an interval")
    assert "%" not in judged(None, 1).verdict_words("ru")
    assert "86.0 % of the gap" in judged([0.2, 0.4], 20).verdict_words("en")


def test_a_student_that_got_worse_has_gone_no_part_of_the_way() -> None:
    gain = {"bits_per_byte": -0.01, "ci95": [-0.04, 0.02]}
    lost = DistillResult(Path("run"), gain=gain, verdict="inconclusive", gap_closed=-0.028, documents=20)
    said = lost.verdict_words("en")
    assert said == (
        "inconclusive: 0.0100 bits per byte worse than before (95 % interval of the gain -0.0400 to +0.0200)"
    )


@pytest.mark.parametrize(
    ("agrees", "kl", "verdict", "said"),
    [
        (0.343, 1.618, "improved", True),
        (0.343, 1.4, "improved", False),
        (0.5, 1.618, "improved", False),
        (0.343, 1.618, "inconclusive", False),
        (None, None, "improved", False),
    ],
)
def test_better_on_the_texts_but_further_from_the_teacher(
    agrees: float | None, kl: float | None, verdict: str, said: bool
) -> None:
    before = figures(teacher_agreement=0.412, teacher_kl=1.45)
    result = DistillResult(
        Path("run"), before=before, after=figures(teacher_agreement=agrees, teacher_kl=kl), verdict=verdict
    )
    assert bool(result.following_words("en")) == bool(result.following_words("ru")) == said
    if said:
        words = result.following_words("en")
        assert "in 34.3 % of the tokens (before 41.2 %)" in words
        assert "1.618 nats (before 1.450)" in words


def test_a_run_of_a_version_that_had_fewer_parameters(tmp_path: Path) -> None:
    made = RunDirectory.create(tmp_path / "run", resolve({"output_dir": str(tmp_path), "folder_name": "run"}))
    (made.path / "metrics.json").write_text('{"train": {"steps": 1}, "best": {"step": 1, "bits_per_byte": 1.5}}')
    (made.path / "validation.json").write_text(
        '{"verdict": "worse", "gain": {"bits_per_byte": -0.1, "ci95": [-0.2, -0.05]}, "documents": 20}'
    )
    for stage, outputs in (("distill", ["metrics.json"]), ("validate", ["validation.json"])):
        made.begin_stage(stage, {"epochs": "1"})
        made.finish_stage(stage, [made.path / name for name in outputs], {})
    said = read_result(made).next_steps
    assert any("learning rate" in step for step in said)
    for name in ("batch_size", "gradient_accumulation", "sample_size", "learning_rate", "epochs", "max_steps"):
        del made.manifest.config[name]
    assert read_result(made).next_steps == said
