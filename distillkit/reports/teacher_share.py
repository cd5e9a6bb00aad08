"""What part of a student's gain is the teacher's, in words: the student beside its control, which had no teacher.

Everything is in bits per byte of the test texts; `gain` is before − after, `teacher_gain` is control − after, each with its
95 % interval `ci95`, None where there are too few documents for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

TeacherVerdict = Literal["helped", "not shown", "harmed"]


def teacher_verdict(teacher_gain: Mapping[str, Any]) -> TeacherVerdict:
    """Whether the teacher has made the student better than its control: only where the interval excludes zero."""
    interval = teacher_gain.get("ci95")
    if interval is not None and interval[0] > 0:
        return "helped"
    return "harmed" if interval is not None and interval[1] < 0 else "not shown"


def share_sentence(gain: Mapping[str, Any], teacher_gain: Mapping[str, Any]) -> str:
    """`of 3.10 bits per byte, 3.05 is training on these texts and 0.05 [0.03, 0.07] the teacher`."""
    teachers = float(teacher_gain["bits_per_byte"])
    places = _places(teachers, teacher_gain.get("ci95"))
    whole = round(float(gain["bits_per_byte"]), places)
    # As shown, the parts add up to the whole.
    training = whole - round(teachers, places)
    share = f"{teachers:.{places}f}{_interval(teacher_gain.get('ci95'), places)}"
    found = teacher_verdict(teacher_gain)
    if found == "helped" and whole > 0 and training >= 0:
        return f"of {whole:.{places}f} bits per byte, {training:.{places}f} is training on these texts and {share} the teacher"
    alone = f"without the teacher the same training {_changes(training, places)}, with it {_changes(whole, places)}"
    if found == "helped":
        return f"{alone}: the teacher is worth {share}"
    if found == "harmed":
        return f"{alone}: the student lost to its control, the teacher's part is {share}"
    why = "" if teacher_gain.get("ci95") is not None else ": too few documents"
    return f"{alone}: the teacher's part, {share}, is not shown to be above 0{why}"


def _places(teachers: float, interval: Any) -> int:
    """Decimals with which the teacher's part still shows a digit, and its interval two ends: two to four."""
    shown = abs(teachers) if interval is None else min(abs(teachers), float(interval[1]) - float(interval[0]))
    return 2 if shown >= 0.02 else 3 if shown >= 0.002 else 4


def _interval(interval: Any, places: int) -> str:
    return "" if interval is None else f" [{interval[0]:.{places}f}, {interval[1]:.{places}f}]"


def _changes(gained: float, places: int) -> str:
    return f"{'gains' if gained >= 0 else 'loses'} {abs(gained):.{places}f} bits per byte"


def share_advice(teacher_gain: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What to try where the teacher has not helped; "" where it has.

    Args:
        config: the parameters of the run.
    """
    found = teacher_verdict(teacher_gain)
    if found == "helped":
        return ""
    ways: list[str] = []
    if config.get("box_type") == "white" and config.get("temperature", 1.0) > 1:
        ways.append("--temperature 1")
    if config.get("alpha", 0.0) > 0.5:
        ways.append("--alpha 0.5")
    ways.append("more text (--sample-size)")
    if found == "not shown":
        ways.append("more texts to measure on (--held-out-size)")
    ways.append("a better teacher for these texts")
    return f"try {', '.join(ways[:-1])} or {ways[-1]}; without the teacher (--alpha 0) the run is cheaper"
