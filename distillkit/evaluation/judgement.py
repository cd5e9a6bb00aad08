"""What the scores of a run come to: the gain, how much of it is the teacher's, the verdict, and whether the gate holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit.evaluation.bits_per_byte import Scores
from distillkit.evaluation.bootstrap import Interval, gap_closed, paired_bootstrap, verdict
from distillkit.reports.teacher_share import teacher_verdict
from distillkit.settings.conditions import needs_control
from distillkit.settings.parameters import Parameters


def judged(scores: dict[str, Scores], seed: int) -> dict[str, Any]:
    """What the student has gained, how much of it is the teacher's, how sure that is, and the verdict, for validation.json.

    Args:
        scores: of "before" and "after"; of "teacher" and "control" where there are any.
        seed: of the bootstrap.
    """
    interval = paired_bootstrap(scores["before"], scores["after"], seed=seed)
    gap = ("teacher", "before", "after")
    compared: dict[str, Any] = {
        # Nobody knows how far away a teacher is that was not measured.
        "gap_closed": gap_closed(*(scores[name].bits_per_byte for name in gap)) if "teacher" in scores else None,
        "gain": _gain(interval),
        "verdict": verdict(interval),
    }
    if "control" in scores:
        compared["teacher_gain"] = _gain(paired_bootstrap(scores["control"], scores["after"], seed=seed))
    return compared


def gate_failure(config: Parameters, decision: str, teacher_gain: Mapping[str, Any] | None) -> str | None:
    """Why the student does not pass the quality gate of the configuration; None if it does.

    Args:
        decision: the verdict, after beside before.
        teacher_gain: as in what `judged` gives; None without a control.
    """
    if needs_control(vars(config)) and teacher_gain is not None:
        found = teacher_verdict(teacher_gain)
        comparison = "worse than" if found == "harmed" else "not shown to be better than"
        failure = f"quality gate {config.quality_gate!r}: the student is {comparison} its control, trained without the teacher"
        return None if found == "helped" else failure
    if config.quality_gate == "off" or decision == "improved":
        return None
    if decision == "inconclusive" and config.quality_gate == "not-worse":
        return None
    comparison = "worse than" if decision == "worse" else "not shown to be better than"
    return f"quality gate {config.quality_gate!r}: the student is {comparison} before"


def interval_ends(interval: Interval) -> list[float] | None:
    """[low, high]; None where there are too few documents for an interval."""
    return None if interval.low is None or interval.high is None else [interval.low, interval.high]


def _gain(interval: Interval) -> dict[str, Any]:
    return {"bits_per_byte": interval.estimate, "ci95": interval_ends(interval)}
