"""What to try next: only what the run's figures speak for, with commands that can be copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit.reports.next_steps import next_steps, still_falling

CONFIG: dict[str, Any] = {
    "epochs": 2, "learning_rate": 5e-5, "box_type": "white", "temperature": 2.0, "alpha": 0.7, "sample_size": 200,
    "batch_size": 4, "gradient_accumulation": 1, "max_steps": None, "seed": 42,
}  # fmt: skip
SETTLED = [(0, 4.0), (50, 3.2), (100, 3.01), (150, 3.0), (200, 3.0)]
FALLING = [(0, 4.0), (50, 3.7), (100, 3.4), (150, 3.2), (200, 3.0)]
HARMED = {"bits_per_byte": -0.05, "ci95": [-0.07, -0.01]}
UNSURE = {"bits_per_byte": 0.01, "ci95": [-0.02, 0.04]}
HELPED = {"bits_per_byte": 0.05, "ci95": [0.03, 0.07]}


def scores(pairs: list[tuple[int, float]]) -> list[dict[str, Any]]:
    return [{"step": step, "bits_per_byte": score} for step, score in pairs]


def steps(curve: list[tuple[int, float]] = SETTLED, **changes: Any) -> list[str]:
    usual: dict[str, Any] = {
        "verdict": "improved", "gap_closed": 0.8, "teacher_gain": None, "metrics": {"held_out": scores(curve)},
        "config": CONFIG, "run": Path("my runs/one"),
    }  # fmt: skip
    return next_steps(**usual | changes)


def test_a_good_run_needs_nothing() -> None:
    assert steps() == steps(teacher_gain=HELPED) == []
    assert steps(verdict=None, gap_closed=None, metrics={}) == []


def test_a_student_that_got_worse() -> None:
    (step,) = steps(verdict="worse", gap_closed=None)
    assert "--learning-rate 2e-5" in step
    assert "distillkit tune --run 'my runs/one'" in step


def test_a_gain_that_may_be_chance() -> None:
    (step,) = steps(verdict="inconclusive", gap_closed=None)
    assert "--held-out-size" in step
    assert "--sample-size" in step


@pytest.mark.parametrize(("closed", "said"), [(0.07, True), (0.49, True), (0.5, False), (1.2, False), (None, False)])
def test_far_from_the_teacher(closed: float | None, said: bool) -> None:
    assert any("far from its teacher" in step for step in steps(gap_closed=closed)) == said


def test_lost_to_the_control_or_not_shown_to_help() -> None:
    (lost,), (unsure,) = steps(teacher_gain=HARMED), steps(teacher_gain=UNSURE)
    assert lost.startswith("the student lost to its control: try --temperature 1")
    assert unsure.startswith("the teacher is not shown to have helped: try --temperature 1")


def test_a_small_part_of_the_teachers_is_tried_with_another_seed() -> None:
    small = {"bits_per_byte": 0.007, "ci95": [0.001, 0.012]}
    (again,) = steps(teacher_gain=small)
    assert again.endswith("such as distillkit distill --config 'my runs/one/config.yaml' --seed 43")
    lost, again = steps(teacher_gain={"bits_per_byte": -0.01, "ci95": [-0.015, -0.005]})
    assert lost.startswith("the student lost to its control")
    assert again.startswith("the teacher's part is small")
    assert steps(teacher_gain={"bits_per_byte": 0.02, "ci95": [0.01, 0.03]}) == []


def test_still_falling_when_it_stopped() -> None:
    (step,) = steps(FALLING)
    assert step.endswith("go on with distillkit distill --run 'my runs/one' --epochs 4")
    assert "--epochs" not in " ".join(steps(FALLING, config=CONFIG | {"epochs": 15})), "20 are the most"
    both = steps(FALLING, gap_closed=0.1)
    assert len(both) == 2
    assert "distillkit tune" not in both[1], "the training was not at its end yet"


@pytest.mark.parametrize(
    ("curve", "falling"),
    [
        (FALLING, True),
        (SETTLED, False),
        (FALLING[:2], False),
        ([], False),
        # The best is not the last.
        ([(0, 4.0), (100, 2.9), (180, 3.3), (200, 3.0)], False),
        # It got worse, and a little better again.
        ([(0, 4.0), (100, 6.0), (200, 5.0)], False),
        # A twentieth of the gain in the last fifth, and a little less.
        ([(0, 4.0), (160, 3.06), (200, 3.0)], True),
        ([(0, 4.0), (160, 3.04), (200, 3.0)], False),
    ],
)
def test_when_a_curve_still_falls(curve: list[tuple[int, float]], falling: bool) -> None:
    assert still_falling(scores(curve)) == falling


CUT_SHORT = {"max_steps": 10}


def short(read: int, **changes: Any) -> list[str]:
    """Of 10 steps, or as many as `read` says, of 100 texts."""
    metrics = {"held_out": scores(SETTLED), "train": {"steps": read}}
    return steps(metrics=metrics, config=CONFIG | CUT_SHORT, examples=100, gap_closed=0.1, **changes)


def test_more_steps_where_texts_are_left_unread() -> None:
    (far,) = short(10)
    assert "--max-steps 25 reads all 100 training texts, at most 40 were read" in far
    assert "--sample-size" not in far
    # All were read, and the source has no more.
    (far,) = short(25)
    assert "this one gave 100 of the 200 that --sample-size asks for" in far
    # Nor does it help to ask for more where the epochs ended the training.
    (far,) = steps(gap_closed=0.1, examples=100, metrics={"held_out": scores(SETTLED), "train": {"steps": 50}})
    assert "this one gave 100" in far
    (far,) = steps(gap_closed=0.1, examples=200)
    assert "more text (--sample-size)" in far
    (unsure,) = short(10, verdict="inconclusive")
    assert "--held-out-size) and more steps (--max-steps 25" in unsure


def test_going_on_lengthens_what_ended_the_training() -> None:
    falling = {"held_out": scores(FALLING), "train": {"steps": 10}}
    (step,) = steps(config=CONFIG | CUT_SHORT, metrics=falling, examples=100)
    assert step.endswith("--max-steps 25"), "all texts once"
    (step,) = steps(config=CONFIG | CUT_SHORT, metrics=falling, examples=20)
    assert step.endswith("--max-steps 20"), "epochs have no effect beside it"
    (step,) = steps(FALLING, config=CONFIG | {"epochs": 15}, examples=100)
    assert step.endswith("a source with more texts would bring more")


def test_a_handful_of_texts_speaks_for_nothing() -> None:
    (step,) = steps(verdict="inconclusive", gap_closed=0.1, teacher_gain=UNSURE, too_few=1)
    assert step.startswith("too few texts to measure on (1)")
    assert "tune" not in step
    assert steps(FALLING, verdict="inconclusive", too_few=1) == [step]
