"""What the scores of a run come to, and whether the quality gate holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distillkit.evaluation.bits_per_byte import Scores
from distillkit.evaluation.bootstrap import paired_bootstrap
from distillkit.evaluation.judgement import gate_failure, interval_ends, judged
from distillkit.settings.parameters import Parameters


def scores(nats: float, documents: int = 12) -> Scores:
    """Documents of 100 bytes that take about so many nats each, every model's in the same ups and downs."""
    ups = np.linspace(-5, 5, documents)
    whole = np.full(documents, 100)
    return Scores(np.arange(documents), nats + ups * nats / 100, whole, whole)


def test_a_gain_has_its_interval_and_a_verdict() -> None:
    found = judged({"before": scores(200), "after": scores(150)}, seed=3)
    interval = paired_bootstrap(scores(200), scores(150), seed=3)
    assert found == {
        "gap_closed": None,
        "gain": {"bits_per_byte": interval.estimate, "ci95": [interval.low, interval.high]},
        "verdict": "improved",
    }


def test_a_teacher_gives_the_gap_and_a_control_the_teachers_part() -> None:
    models = {"teacher": 100, "before": 200, "after": 150, "control": 160}
    found = judged({name: scores(nats) for name, nats in models.items()}, seed=3)
    assert found["gap_closed"] == pytest.approx(0.5)
    assert found["teacher_gain"]["bits_per_byte"] == pytest.approx(10 / 100 / np.log(2))
    assert judged({"before": scores(150), "after": scores(200)}, seed=3)["verdict"] == "worse"


def test_too_few_documents_have_no_interval() -> None:
    assert interval_ends(paired_bootstrap(scores(200, 3), scores(150, 3), seed=1)) is None


HELPED, UNCLEAR, HARMED = ({"bits_per_byte": 0.0, "ci95": ends} for ends in ([0.1, 0.2], [-0.1, 0.1], [-0.2, -0.1]))


@pytest.mark.parametrize(
    ("gate", "decision", "teacher_gain", "why"),
    [
        ("off", "worse", None, None),
        ("not-worse", "improved", None, None),
        ("not-worse", "inconclusive", None, None),
        ("not-worse", "worse", HELPED, "worse than before"),
        ("improved", "improved", HARMED, None),
        ("improved", "inconclusive", None, "not shown to be better than before"),
        ("improved", "worse", None, "worse than before"),
        ("better-than-control", "worse", HELPED, None),
        ("better-than-control", "improved", UNCLEAR, "not shown to be better than its control, trained without the teacher"),
        ("better-than-control", "improved", HARMED, "worse than its control, trained without the teacher"),
    ],
)  # fmt: skip
def test_the_gate(gate: Any, decision: str, teacher_gain: dict[str, Any] | None, why: str | None) -> None:
    said = None if why is None else f"quality gate {gate!r}: the student is {why}"
    assert gate_failure(Parameters(quality_gate=gate), decision, teacher_gain) == said
