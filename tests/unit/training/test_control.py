"""The control: what of the configuration has a part in it, what its checkpoints belong to, and when it is made."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from distillkit.console import Console
from distillkit.errors import PreconditionError
from distillkit.run.directory import RunDirectory
from distillkit.run.student_size import StudentSize
from distillkit.settings import declared
from distillkit.settings.parameters import Parameters
from distillkit.settings.resolve import resolve
from distillkit.stages import wanted_stages
from distillkit.training.control import (
    TEACHERS_PART,
    ControlChoice,
    ControlCost,
    choose_control,
    control_config,
    control_fingerprint,
    early_choice,
    measured_cost,
    remember_control,
    remembered_control,
    settled_control,
)

# What decides the control's own training, so that another value makes another control.
ITS_OWN = {
    "batch_size", "learning_rate", "no_cuda", "checkpoint_interval", "save_best_model", "gradient_accumulation", "precision",
    "lr_schedule", "warmup_fraction", "compile_loss", "optimizer", "weight_decay", "max_grad_norm",
    "early_stopping_patience", "attn_implementation", "adapter", "lora_rank", "lora_alpha", "lora_dropout", "keep_adapter",
}  # fmt: skip
OTHER_VALUES: dict[str, Any] = {
    "teacher_weights": "2,1", "temperature": 3.0, "alpha": 0.4, "beta": 0.6, "tune_teacher": 5, "temperature_schedule": "anneal",
    "alpha_schedule": "decay", "alignment": "strict", "prefix_map": "canonical", "divergence": "jsd", "divergence_mix": 0.2,
    "ab_alpha": 0.3, "ab_beta": 0.3, "teacher_cache": "exact", "sparse_method": "top-k", "sparse_size": 8,
    "teacher_streaming": "on", "teacher_precision": "int8", "answers": 2, "teacher_temperature": 0.5, "teacher_top_p": 0.5,
    "refusals": "drop", "cut_answers": "drop", "keep_answers": "re:x", "batch_size": 3, "learning_rate": 1e-4, "no_cuda": True,
    "checkpoint_interval": 7, "save_best_model": False, "gradient_accumulation": 2, "precision": "fp32",
    "lr_schedule": "cosine", "warmup_fraction": 0.2, "compile_loss": "off", "optimizer": "muon", "weight_decay": 0.1,
    "max_grad_norm": 0.5, "early_stopping_patience": 2, "attn_implementation": "eager",
    "adapter": "lora", "lora_rank": 3, "lora_alpha": 3.0, "lora_dropout": 0.1, "keep_adapter": True,
    "on_policy_fraction": 0.5, "on_policy_max_new_tokens": 8, "on_policy_temperature": 0.5, "replay_buffer": 64,
    "replay_fraction": 0.25,
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", resolve({"dataset": "python-docs"}))


def complete(run: RunDirectory, stage: str, inputs: dict[str, str] | None = None, **metrics: Any) -> None:
    """A stage that is done, with a file of its own."""
    path = run.path / f"{stage}.txt"
    path.write_text(f"{stage} {metrics}", encoding="utf-8")
    run.begin_stage(stage, inputs or {})
    run.finish_stage(stage, [path], metrics)


# --- what it is ------------------------------------------------------------------------------------------------------


def test_every_parameter_of_the_training_is_the_teachers_or_the_controls_own() -> None:
    """A new parameter has to be put on one side."""
    of_training = {name for name in declared.fields() if declared.facts(name).affects == "distill"}
    assert of_training == set(TEACHERS_PART) | ITS_OWN | {"epochs", "max_steps"}
    assert set(TEACHERS_PART) & ITS_OWN == set()
    assert set(OTHER_VALUES) == set(TEACHERS_PART) | ITS_OWN


def test_alpha_is_0_and_nothing_of_the_teacher_is_left() -> None:
    config = Parameters(alpha=0.9, beta=0.1, temperature=3.0, alpha_schedule="decay", learning_rate=1e-4, seed=7)
    plain = control_config(config)
    assert (plain.alpha, plain.beta) == (0.0, 1.0)
    changed = {name for name in declared.fields() if getattr(plain, name) != getattr(config, name)}
    assert changed == {"alpha", "beta", "temperature", "alpha_schedule"}


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_its_checkpoints_belong_to_what_decides_it(run: RunDirectory, name: str) -> None:
    complete(run, "prepare-data")
    usual = Parameters()
    value = OTHER_VALUES[name]
    assert value != getattr(usual, name)
    other = dataclasses.replace(usual, **{name: value})
    same = control_fingerprint(other, run) == control_fingerprint(usual, run)
    assert same is (name in TEACHERS_PART)


def test_epochs_may_grow_and_other_data_are_another_control(run: RunDirectory) -> None:
    complete(run, "prepare-data")
    before = control_fingerprint(Parameters(epochs=1), run)
    assert control_fingerprint(Parameters(epochs=5), run) == before
    complete(run, "prepare-data", tokens=5)
    assert control_fingerprint(Parameters(epochs=1), run) != before


# --- whether it is made ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "on", "why"),
    [
        ({"control": True}, True, "--control"),
        ({"control": False}, False, "--no-control"),
        ({"control": True, "skip_validation": True}, True, "--control"),
        ({"control": True, "alpha": 0.0, "beta": 1.0}, False, "alpha is 0"),
        ({"alpha": 0.0, "beta": 1.0}, False, "alpha is 0"),
        ({"skip_validation": True}, False, "--skip-validation"),
        ({"quality_gate": "better-than-control"}, True, "the quality gate"),
    ],
)
def test_what_the_configuration_settles(run: RunDirectory, changes: dict[str, Any], on: bool, why: str) -> None:
    config = Parameters(**changes)
    choice = settled_control(config)
    assert choice is not None
    assert choice.on is on
    assert why in choice.why
    # Nothing that was noted or measured changes it.
    remember_control(run, ControlChoice(not on, "once"), Console(quiet=True))
    assert early_choice(config, run) == choice


def test_left_to_the_program_it_depends_on_what_it_costs(run: RunDirectory) -> None:
    assert settled_control(Parameters()) is None
    assert early_choice(Parameters(), None) is None
    assert early_choice(Parameters(), run) is None


@pytest.mark.parametrize(
    ("seconds", "others", "free", "on", "why"),
    [
        (40, 60, 100, True, "0:40 of 1:40, less than half"),
        (59, 60, 100, True, "less than half"),
        (60, 60, 100, False, "half of the whole run or more"),
        (90, 60, 100, False, "1:30 of 2:30"),
        (1, 60, 99, False, "100 B of disk, 99 B are free"),
    ],
)
def test_less_than_half_of_the_whole_run(seconds: float, others: float, free: int, on: bool, why: str) -> None:
    choice = choose_control(ControlCost(seconds, others, 100, free))
    assert choice.on is on
    assert why in choice.why


@pytest.mark.parametrize(
    ("figures", "steps", "seconds"),
    [
        # The cached pass is no part of the training; the live one is between its steps.
        ({"teacher_pass": {"seconds": 30.0}, "decisions": {"teacher_cache": "exact"}}, 10, 40.0),
        ({"teacher_pass": {"seconds": 30.0}, "decisions": {"teacher_cache": "off"}}, 10, 10.0),
        # Black box: half of its texts are the teacher's.
        ({"decisions": {}}, 5, 20.0),
        # The manifest of an earlier version.
        ({}, 10, 40.0),
    ],
)
def test_what_was_measured(run: RunDirectory, figures: dict[str, Any], steps: int, seconds: float) -> None:
    complete(run, "prepare-data", seconds=5.0)
    complete(run, "distill", train={"seconds": 40.0, "steps": 10}, seconds=75.0, **figures)
    cost = measured_cost(Parameters(), run, steps, StudentSize(1000, 1000))
    assert cost.seconds == pytest.approx(seconds)
    assert cost.others == pytest.approx(80.0)
    # Weights and two moments three times while one is written, and three students.
    assert cost.disk == 4 * 1000 * (3 * 3 + 3)


def test_a_last_attempt_is_not_the_whole_training(run: RunDirectory) -> None:
    complete(run, "prepare-data", seconds=5.0)
    complete(run, "distill", train={"seconds": 40.0, "steps": 10}, seconds=2.0)
    assert measured_cost(Parameters(), run, 10, StudentSize(1000, 1000)).others == pytest.approx(45.0)


def test_the_choice_is_kept(run: RunDirectory) -> None:
    assert remembered_control(run) is None
    choice = ControlChoice(False, "it was dear")
    remember_control(run, choice, Console(quiet=True))
    assert remembered_control(run) == early_choice(Parameters(), run) == choice
    note = run.control / "decision.json"
    note.write_text(note.read_text(encoding="utf-8").replace("false", "true"), encoding="utf-8")
    with pytest.raises(PreconditionError, match=r"decision\.json is damaged") as caught:
        early_choice(Parameters(), run)
    assert "distillkit control" in str(caught.value.hint)


def test_a_run_that_has_its_verdict_does_not_train_by_itself(run: RunDirectory) -> None:
    complete(run, "distill")
    complete(run, "validate", {"result of distill": run.result_fingerprint("distill")})
    choice = early_choice(Parameters(), run)
    assert choice is not None
    assert not choice.on
    assert f"distillkit control --run {run.path}" in choice.why
    # Trained further, it has none yet.
    complete(run, "distill", train={})
    assert early_choice(Parameters(), run) is None


def test_the_stage_runs_unless_it_is_turned_off() -> None:
    assert "control" in wanted_stages(Parameters())
    assert "control" in wanted_stages(Parameters(skip_validation=True))
    assert "control" not in wanted_stages(Parameters(control=False))


# --- which control belongs to a run ----------------------------------------------------------------------------------


def test_a_control_of_another_training_is_none(run: RunDirectory) -> None:
    assert run.best_control is None
    complete(run, "distill")
    of_this = {"result of distill": run.result_fingerprint("distill")}
    complete(run, "control", of_this, made=False)
    assert run.best_control is None
    complete(run, "control", of_this, made=True)
    assert run.best_control == run.path / "control" / "student" / "final"
    (run.path / "control" / "student" / "best").mkdir(parents=True)
    assert run.best_control == run.path / "control" / "student" / "best"
    complete(run, "distill", train={"seconds": 1.0})
    assert run.best_control is None
