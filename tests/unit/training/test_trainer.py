"""The learning-rate schedule, the number of steps, and what is kept for a resumed run."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from distillkit.device.precision import Compute
from distillkit.settings.parameters import Parameters
from distillkit.training.arguments import total_steps, training_arguments
from distillkit.training.progress import Progress
from distillkit.training.schedules import schedule_factor

LENGTHS = [(0, 1), (0, 2), (1, 2), (3, 60), (50, 100), (0, 100), (99, 100), (5, 5)]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("warmup", "total"), LENGTHS)
def test_no_step_is_spent_on_a_rate_of_zero(schedule: str, warmup: int, total: int) -> None:
    factors = [schedule_factor(schedule, warmup, total, step) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    rising, falling = factors[:warmup], factors[warmup:]
    assert all(left < right for left, right in itertools.pairwise(rising))
    if rising and falling:
        assert rising[-1] < falling[0]
    if falling:
        assert falling[0] == 1
    if schedule == "constant":
        assert set(falling) <= {1.0}
    else:
        assert all(left > right for left, right in itertools.pairwise(falling))


def test_the_schedules_fall_to_zero_as_they_are_named() -> None:
    assert schedule_factor("linear", 10, 110, 60) == pytest.approx(0.5)
    assert schedule_factor("cosine", 10, 110, 60) == pytest.approx(0.5)
    assert schedule_factor("cosine", 10, 110, 35) == pytest.approx(0.5 + 2**0.5 / 4)
    # The Trainer asks for the step after the last one too.
    assert schedule_factor("linear", 10, 110, 110) == schedule_factor("linear", 10, 110, 111) == 0
    assert schedule_factor("cosine", 10, 110, 110) == pytest.approx(0, abs=1e-12)
    assert schedule_factor("constant", 10, 110, 500) == 1


@pytest.mark.parametrize(
    ("examples", "batch", "accumulation", "epochs", "expected"),
    [(48, 8, 1, 1, 6), (49, 8, 1, 1, 7), (49, 8, 1, 3, 21), (49, 8, 4, 3, 6), (5, 8, 4, 2, 2), (64, 8, 4, 1, 2)],
)
def test_steps(examples: int, batch: int, accumulation: int, epochs: int, expected: int) -> None:
    config = Parameters(batch_size=batch, gradient_accumulation=accumulation, epochs=epochs)
    assert total_steps(config, examples) == expected


def test_long_trainings_log_every_few_steps(tmp_path: Path) -> None:
    compute = Compute(torch.device("cpu"), None, torch.float32)
    found = {}
    for examples in (800, 80_000):
        config = Parameters(batch_size=8, epochs=1, warmup_fraction=0.1)
        found[examples] = training_arguments(config, compute, tmp_path, examples, resumed=False)
    assert [found[examples].logging_steps for examples in found] == [1, 5]
    assert [found[examples].warmup_steps for examples in found] == [10, 1000]


def test_only_a_fresh_start_is_scored(tmp_path: Path) -> None:
    compute = Compute(torch.device("cpu"), None, torch.float32)
    for resumed in (False, True):
        arguments = training_arguments(Parameters(), compute, tmp_path, 100, resumed=resumed)
        assert arguments.eval_on_start is not resumed


def test_progress_comes_back_as_it_was(tmp_path: Path) -> None:
    progress = Progress(
        tokens=7,
        seconds=0.1,
        teacher_tokens=8,
        teacher_seconds=1 / 3,
        soft_sum=2 / 7,
        logged_step=4,
        mapped=0.7,
        rows=3,
    )
    progress.save(tmp_path)
    assert Progress.load(tmp_path) == progress
