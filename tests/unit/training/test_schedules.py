"""Temperature and weights over a training, against the plain objective in float64."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from plain_objective import combine, cross_vocabulary_terms

from distillkit import UsageError, registry
from distillkit.data.batching import DistillationCollator
from distillkit.losses.chunked import StudentOutput
from distillkit.losses.mapped_mass import MappedMass
from distillkit.losses.tempered import SoftLoss
from distillkit.losses.uld import UniversalLogitLoss
from distillkit.settings.parameters import Parameters
from distillkit.settings.resolve import resolve
from distillkit.training.objectives import SoftSettings, Weights, objective_of
from distillkit.training.schedules import Course, training_fraction

BOTH: dict[str, Any] = {"temperature_schedule": "anneal", "alpha_schedule": "decay"}
V = 13


@dataclass
class Guided:
    """A teacher's distributions at every other target."""

    rows: torch.Tensor
    values: torch.Tensor

    def __post_init__(self) -> None:
        self.mass = MappedMass()

    def prepare(self, batch: Any) -> dict[str, Any]:
        return {}

    def soft_targets(self, batch: Any) -> Any:
        return self

    def log_target(self, begin: int, end: int, columns: int) -> torch.Tensor:
        return self.values[begin:end]


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("schedule", ["constant", "decay", "tempered"])
@pytest.mark.parametrize("divergence", ["forward-kl", "jsd", "taid"])
def test_the_loss_of_each_step(divergence: str, schedule: str, step: int) -> None:
    config = Parameters(
        temperature=3.0, alpha=0.8, beta=0.2, divergence=divergence, temperature_schedule="anneal",
        alpha_schedule=schedule,  # type: ignore[arg-type]
    )  # fmt: skip
    generator = torch.Generator().manual_seed(step)
    logits = torch.randn(2, 7, V, dtype=torch.float64, generator=generator).requires_grad_()
    rows = [
        {"id": at, "first_target": 1, "cache_index": at, "student_ids": ids}
        for at, ids in enumerate(([1, 5, 2, 9], [3, 3, 8, 0, 7]))
    ]
    batch = DistillationCollator(white_box=True, aligned=False)(rows)
    logits = logits[:, : batch["input_ids"].shape[1]]
    guided = torch.arange(0, len(batch["target_rows"]), 2)
    values = torch.randn(len(guided), V, dtype=torch.float64, generator=generator) * 2
    objective = objective_of(Guided(guided, values), config)

    fraction = step / 5
    tau = 3 - 2 * fraction
    alpha = {"constant": 0.8, "decay": 0.8 * (1 - fraction), "tempered": 0.8 / tau**2}[schedule]
    beta = 1 - alpha
    assert training_fraction(step, 6) == pytest.approx(fraction)
    assert Course.of(config).weights(0.8, 0.2, training_fraction(step, 6)) == pytest.approx((alpha, beta))
    weights = Course.of(config).weights(0.8, 0.2, training_fraction(step, 6))
    found = objective(
        StudentOutput(logits, lambda hidden: hidden, (), V),
        {**batch, "prepared": {}},
        Weights(*weights, torch.tensor(7), training_fraction(step, 6)),
    )
    soft = dataclasses.replace(objective.soft.loss, temperature=tau, training_fraction=fraction)  # type: ignore[attr-defined]
    terms = cross_vocabulary_terms(logits, batch["labels"], batch["target_rows"][guided], values, soft=soft)
    expected = combine(terms, alpha, beta, 7)
    torch.testing.assert_close(found.loss, expected)
    assert found.loss.item() == pytest.approx((alpha * found.soft_sum + beta * found.hard_sum).item() / 7)
    (ours,), (theirs,) = torch.autograd.grad(found.loss, [logits]), torch.autograd.grad(expected, [logits])
    torch.testing.assert_close(ours, theirs)


def test_the_fraction_of_a_training() -> None:
    assert [training_fraction(step, 5) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert training_fraction(0, 1) == 0
    assert training_fraction(0, 0) == 0


@pytest.mark.parametrize("alpha", [0.3, 0.7, 1.0])
def test_the_weights_add_up_to_one_at_all_times(alpha: float) -> None:
    courses = [Course(2.0, anneals=True, tempered=True), Course(decays=True)]
    for course in courses:
        found = [course.weights(alpha, 1 - alpha, step / 10) for step in range(11)]
        assert [sum(pair) for pair in found] == pytest.approx([1] * 11)
    assert found[0] == (alpha, 1 - alpha)
    assert found[-1] == (0, 1)
    assert [pair[0] for pair in found] == sorted((pair[0] for pair in found), reverse=True)
    assert Course().weights(alpha, 1 - alpha, 0.5) == (alpha, 1 - alpha)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"alpha": 0.175}),
        ({"alpha_schedule": "constant"}, {}),
        (BOTH, {"alpha": 0.35, "temperature": 1.5}),
        ({**BOTH, "temperature": 1.0}, {"alpha": 0.35}),
        ({**BOTH, "alignment": "alm"}, {"alpha": 0.35}),
        ({**BOTH, "box_type": "black"}, {"alpha": 0.35}),
        # There is nothing to change where the teacher has no part.
        ({**BOTH, "alpha": 0.0, "beta": 1.0}, {}),
        ({"temperature_schedule": "anneal", "alpha_schedule": "constant", "temperature": 4.0}, {"temperature": 2.5}),
        ({"alpha_schedule": "tempered"}, {"alpha": 0.175}),
        ({"alpha_schedule": "tempered", "temperature_schedule": "anneal"}, {"alpha": 0.7 / 2.25, "temperature": 1.5}),
        # There is no factor to take off, or none above 1.
        ({"alpha_schedule": "tempered", "temperature": 1.0}, {}),
        ({"alpha_schedule": "tempered", "temperature": 0.5}, {}),
        # Whoever wants the teacher alone gets it.
        ({"alpha_schedule": "tempered", "alpha": 1.0, "beta": 0.0}, {}),
        ({"alpha_schedule": "tempered", "alignment": "uld"}, {}),
        ({"alpha_schedule": "tempered", "alignment": "alm"}, {}),
        ({"alpha_schedule": "tempered", "box_type": "black"}, {}),
        # Below 1, which only --allow-out-of-range admits, it rises to 1.
        ({"temperature_schedule": "anneal", "temperature": 0.5}, {"temperature": 0.75}),
    ],
)
def test_what_changes(settings: dict[str, Any], expected: dict[str, float]) -> None:
    config = Parameters(**settings)
    assert Course.of(config).figures(config.alpha, config.beta, 0.5) == pytest.approx(expected)


def test_other_losses_with_a_temperature() -> None:
    soft = SoftSettings(UniversalLogitLoss(3.0), anneals=True)
    assert [soft.at(part) for part in (0.0, 0.5, 1.0)] == [UniversalLogitLoss(tau) for tau in (3.0, 2.0, 1.0)]
    assert SoftSettings(UniversalLogitLoss(3.0)).at(0.5) == UniversalLogitLoss(3.0)
    assert SoftSettings(SoftLoss(3.0)).at(0.5).temperature == 3.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("divergence", sorted(registry.DIVERGENCES))
def test_sparse_targets_have_one_temperature(divergence: str) -> None:
    other = {"divergence": divergence, "teacher_cache": "sparse"}
    for settings, refused in (
        ({**other, **BOTH}, True),
        ({**other, **BOTH, "temperature": 1.0}, divergence != "forward-kl"),
        ({**other, "alpha_schedule": "decay"}, divergence != "forward-kl"),
        ({**other, **BOTH, "teacher_cache": "auto"}, False),
        ({**other, **BOTH, "box_type": "black"}, False),
    ):
        if refused:
            with pytest.raises(UsageError, match="--teacher-cache sparse and --"):
                resolve(settings)
        else:
            resolve(settings)
