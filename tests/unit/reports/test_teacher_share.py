"""What part of the gain is the teacher's, in words."""

from __future__ import annotations

from typing import Any

import pytest

from distillkit.reports.teacher_share import share_advice, share_sentence, teacher_verdict
from distillkit.reports.training_texts import TrainingTexts


def gained(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"bits_per_byte": value, "ci95": None if low is None else [low, high]}


@pytest.mark.parametrize(
    ("teachers", "verdict"),
    [
        (gained(0.05, 0.03, 0.07), "helped"),
        (gained(0.05, 0.0, 0.07), "not shown"),
        (gained(0.05, -0.01, 0.07), "not shown"),
        (gained(-0.05, -0.07, 0.0), "not shown"),
        (gained(-0.05, -0.07, -0.01), "harmed"),
        (gained(0.5), "not shown"),
    ],
)
def test_only_an_interval_that_excludes_zero_tells(teachers: dict[str, Any], verdict: str) -> None:
    assert teacher_verdict(teachers) == verdict


@pytest.mark.parametrize(
    ("gain", "teachers", "words"),
    [
        (
            gained(3.1),
            gained(0.05, 0.03, 0.07),
            "of 3.10 bits per byte, 3.05 is training on these texts and 0.05 [0.03, 0.07] the teacher",
        ),
        (
            gained(0.0215),
            gained(0.0022, 0.0019, 0.0025),
            "of 0.0215 bits per byte, 0.0193 is training on these texts and 0.0022 [0.0019, 0.0025] the teacher",
        ),
        (
            gained(0.3),
            gained(-0.05, -0.07, -0.03),
            "without the teacher the same training gains 0.35 bits per byte, with it gains 0.30 bits per byte: the student lost "
            "to its control, the teacher's part is -0.05 [-0.07, -0.03]",
        ),
        (
            gained(0.3),
            gained(0.004, -0.03, 0.038),
            "without the teacher the same training gains 0.296 bits per byte, with it gains 0.300 bits per byte: the teacher's "
            "part, 0.004 [-0.030, 0.038], is not shown to be above 0",
        ),
        (
            gained(0.3),
            gained(0.05),
            "without the teacher the same training gains 0.25 bits per byte, with it gains 0.30 bits per byte: the teacher's "
            "part, 0.05, is not shown to be above 0: too few documents",
        ),
        # Both got worse, the student less.
        (
            gained(-0.1),
            gained(0.05, 0.03, 0.07),
            "without the teacher the same training loses 0.15 bits per byte, with it loses 0.10 bits per byte: the teacher is "
            "worth 0.05 [0.03, 0.07]",
        ),
        # Only the teacher gains anything.
        (
            gained(0.1),
            gained(0.15, 0.13, 0.17),
            "without the teacher the same training loses 0.05 bits per byte, with it gains 0.10 bits per byte: the teacher is "
            "worth 0.15 [0.13, 0.17]",
        ),
    ],
)
def test_the_sentence(gain: dict[str, Any], teachers: dict[str, Any], words: str) -> None:
    assert share_sentence(gain, teachers) == words


def test_the_parts_add_up_as_they_are_shown() -> None:
    words = share_sentence(gained(1.004), gained(0.0451, 0.02, 0.07)).split()
    assert float(words[1]) == pytest.approx(float(words[5]) + float(words[12]), abs=1e-9)


DEFAULTS = {"box_type": "white", "temperature": 2.0, "alpha": 0.7}
ENOUGH = TrainingTexts(examples=100, wanted=100, read=200, needed=25, limited=False)


def advice_of(teachers: dict[str, Any], config: dict[str, Any], texts: TrainingTexts = ENOUGH) -> str:
    return share_advice(teachers, config, texts)


def test_what_to_try() -> None:
    helped, unsure, harmed = gained(0.05, 0.03, 0.07), gained(0.0, -0.1, 0.1), gained(-0.05, -0.07, -0.01)
    assert advice_of(helped, DEFAULTS) == ""
    advice = advice_of(harmed, DEFAULTS)
    for way in ("--temperature 1", "--alpha 0.5", "--sample-size", "--alpha 0)"):
        assert way in advice
    assert "--held-out-size" not in advice
    assert "--held-out-size" in advice_of(unsure, DEFAULTS)
    # What is so already is no advice.
    assert "--temperature" not in advice_of(harmed, DEFAULTS | {"temperature": 1.0})
    assert "--temperature" not in advice_of(harmed, DEFAULTS | {"box_type": "black"})
    assert "--alpha 0.5" not in advice_of(harmed, DEFAULTS | {"alpha": 0.5})
    few = TrainingTexts(examples=80, wanted=100, read=160, needed=20, limited=False)
    assert "this one gave 80 of the 100 that --sample-size asks for" in advice_of(harmed, DEFAULTS, few)
