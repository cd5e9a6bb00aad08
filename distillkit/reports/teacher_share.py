"""What part of a student's gain is the teacher's, in words: the student beside its control, which had no teacher.

Everything is in bits per byte of the test texts; `gain` is before − after, `teacher_gain` is control − after, each with its
95 % interval `ci95`, None where there are too few documents for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from distillkit.reports.training_texts import TrainingTexts
from distillkit.words import say

TeacherVerdict = Literal["helped", "not shown", "harmed"]


def teacher_verdict(teacher_gain: Mapping[str, Any]) -> TeacherVerdict:
    """Whether the teacher has made the student better than its control: only where the interval excludes zero."""
    interval = teacher_gain.get("ci95")
    if interval is not None and interval[0] > 0:
        return "helped"
    return "harmed" if interval is not None and interval[1] < 0 else "not shown"


def share_sentence(gain: Mapping[str, Any], teacher_gain: Mapping[str, Any], lang: str = "en") -> str:
    """`of 3.10 bits per byte, 3.05 is training on these texts and 0.05 [0.03, 0.07] the teacher`."""
    teachers = float(teacher_gain["bits_per_byte"])
    places = _places(teachers, teacher_gain.get("ci95"))
    whole = round(float(gain["bits_per_byte"]), places)
    # As shown, the parts add up to the whole.
    training = whole - round(teachers, places)
    share = f"{teachers:.{places}f}{_interval(teacher_gain.get('ci95'), places)}"
    found = teacher_verdict(teacher_gain)
    if found == "helped" and whole > 0 and training >= 0:
        return say(lang, "share.of", whole=f"{whole:.{places}f}", training=f"{training:.{places}f}", share=share)
    alone = say(
        lang, "share.alone", training=_changes(training, places, lang), whole=_changes(whole, places, lang)
    )  # fmt: skip
    if found == "not shown":
        key = "share.not_shown" if teacher_gain.get("ci95") is not None else "share.few"
    else:
        key = f"share.{found}"
    return say(lang, key, alone=alone, share=share)


def _places(teachers: float, interval: Any) -> int:
    """Decimals with which the teacher's part still shows a digit, and its interval two ends: two to four."""
    shown = abs(teachers) if interval is None else min(abs(teachers), float(interval[1]) - float(interval[0]))
    return 2 if shown >= 0.02 else 3 if shown >= 0.002 else 4


def _interval(interval: Any, places: int) -> str:
    return "" if interval is None else f" [{interval[0]:.{places}f}, {interval[1]:.{places}f}]"


def _changes(gained: float, places: int, lang: str) -> str:
    return say(lang, "share.gains" if gained >= 0 else "share.loses", amount=f"{abs(gained):.{places}f}")


def share_advice(
    teacher_gain: Mapping[str, Any], config: Mapping[str, Any], texts: TrainingTexts, lang: str = "en"
) -> str:
    """What to try where the teacher has not helped; "" where it has.

    Args:
        config: the parameters of the run.
        texts: that it trained on.
    """
    found = teacher_verdict(teacher_gain)
    if found == "helped":
        return ""
    ways: list[str] = []
    if config.get("box_type") == "white" and config.get("temperature", 1.0) > 1:
        ways.append("--temperature 1")
    if config.get("alpha", 0.0) > 0.5:
        ways.append("--alpha 0.5")
    ways.append(texts.more(lang))
    if found == "not shown":
        ways.append(say(lang, "way.more_measured"))
    ways.append(say(lang, "way.better_teacher"))
    return say(lang, "advice.try", ways=listed(ways, "way.or", lang))


def listed(ways: Sequence[str], joint: str, lang: str) -> str:
    """`a, b or c`; `joint` is the key of the word before the last."""
    return say(lang, joint).join(filter(None, [", ".join(ways[:-1]), ways[-1]]))
