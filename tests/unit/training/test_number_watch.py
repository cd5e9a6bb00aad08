"""What the watch over a training's numbers refuses, and what it says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distillkit.errors import DistillkitError, NotFiniteError
from distillkit.training import number_watch
from distillkit.training.number_watch import NumberWatch

REMEDY = "lower --learning-rate"
NAN, INFINITY = float("nan"), float("inf")


class Warnings(list[str]):
    def warn(self, text: str) -> None:
        self.append(text)


def watch(*, teacher: Any = None, warnings: Any = None) -> NumberWatch:
    return NumberWatch("student", REMEDY, teacher, Warnings() if warnings is None else warnings, lambda: 0.00125)


def batch(*example_ids: int) -> dict[str, Any]:
    return {"host": SimpleNamespace(example_ids=list(example_ids))}


def test_a_loss_that_is_none_names_step_rate_and_examples() -> None:
    own = watch()
    own.check_loss(2.5, batch(1), step=6)
    with pytest.raises(NotFiniteError) as caught:
        own.check_loss(NAN, batch(7, 9), step=6)
    assert caught.value.message == "the loss became nan at step 7 (learning rate 0.00125, training examples 7, 9)"
    assert caught.value.hint == f"{REMEDY}, or use --precision fp32; the last checkpoint is untouched"


@pytest.mark.parametrize(("gives", "kind"), [(True, NotFiniteError), (False, DistillkitError)])
def test_where_the_teacher_gives_no_numbers_no_setting_helps(gives: bool, kind: type[DistillkitError]) -> None:
    own = watch(teacher=SimpleNamespace(gives_numbers=lambda inputs: gives))
    with pytest.raises(DistillkitError) as caught:
        own.check_loss(INFINITY, batch(0), step=0)
    assert type(caught.value) is kind
    assert ("it is the teacher" in (caught.value.hint or "")) is not gives


def test_a_gradient_is_refused_at_once_without_a_scaler() -> None:
    own = watch()
    own.check_loss(1.0, batch(3), step=4)
    own.check_gradient(None, step=4, scaled=False)
    own.check_gradient(0.5, step=4, scaled=False)
    with pytest.raises(NotFiniteError, match=r"gradient norm became inf at step 5 .*training examples 3\)"):
        own.check_gradient(INFINITY, step=4, scaled=False)


def test_a_scaler_may_skip_so_many_steps_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_watch, "_MOST_SKIPPED", 2)
    own = watch()
    for norm in (INFINITY, INFINITY, 1.0, INFINITY, NAN):
        own.check_gradient(norm, step=0, scaled=True)
    with pytest.raises(NotFiniteError):
        own.check_gradient(INFINITY, step=0, scaled=True)


def test_weights_that_are_none_are_not_committed() -> None:
    own, good = watch(), torch.ones(3)
    own.check_weights([good, good], step=2)
    with pytest.raises(DistillkitError) as caught:
        own.check_weights([good, torch.tensor([1.0, NAN])], step=2)
    assert caught.value.message.startswith("the student's weights are not numbers any more after step 2 (learning rate")
    assert caught.value.hint == f"{REMEDY}; the last checkpoint is untouched"


def test_a_student_that_gets_worse_is_said_once() -> None:
    said = Warnings()
    own, history = watch(warnings=said), [{"loss": 9.0}, {"eval_bits_per_byte": 2.0}, {"eval_bits_per_byte": 1.0}]
    own.compare_score(2.1, [], step=0)
    own.compare_score(2.19, history, step=3)
    assert said == []
    for _ in range(2):
        own.compare_score(2.21, history, step=4)
    assert said == [
        "the student gets worse: 2.21 bits per byte after step 4, 2 at the start (learning rate 0.00125); "
        "lower --learning-rate"
    ]


def test_the_error_of_a_score_says_where_the_training_was() -> None:
    error = watch().unscored(DistillkitError("no number", hint="so", exit_code=3), step=8)
    assert (error.message, error.hint, error.exit_code) == (
        "after step 8 (learning rate 0.00125): no number", "so", 3,
    )  # fmt: skip
