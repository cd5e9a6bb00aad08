"""The plan: what it says of stages is what the run would do, and its times follow from what is to be done."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer

from distillkit.device.precision import choose_compute
from distillkit.dry_run import microbenchmarks
from distillkit.dry_run.inputs import Amounts
from distillkit.dry_run.microbenchmarks import Timing
from distillkit.dry_run.plan import estimate_run
from distillkit.dry_run.time_model import Work, phase_seconds
from distillkit.models.shape import ModelShape, model_shape
from distillkit.settings.parameters import Parameters

STAGES = ["check-env", "prepare-data", "distill", "control", "validate", "demo", "plot"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, tokenizer = tmp_path_factory.mktemp("models"), tiny_tokenizer()
    for name, layers in (("teacher", 3), ("student", 1)):
        save_model_folder(root / name, tiny_model("llama", len(tokenizer), layers=layers, eos_token_id=0), tokenizer)
    return root


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up machine, on which every figure is one that can be followed."""
    monkeypatch.setattr(microbenchmarks, "forward_per_token", lambda *_, int8=False, **__: 1e-3 / (2 if int8 else 1))
    monkeypatch.setattr(microbenchmarks, "training_per_token", lambda *_: 3e-3)
    monkeypatch.setattr(microbenchmarks, "single_token", lambda *_: 1e-3)
    monkeypatch.setattr(microbenchmarks, "head_seconds", lambda *_: 1e-5)
    monkeypatch.setattr(microbenchmarks, "loss_seconds", lambda *_, **__: (3e-5, 3e-5))
    monkeypatch.setattr(microbenchmarks, "optimizer_seconds", lambda *_: 1e-2)
    monkeypatch.setattr(microbenchmarks, "hashing_rate", lambda: 1.4e9)


def settings(root: Path, **changes: Any) -> Parameters:
    usual: dict[str, Any] = {
        "teacher_model_path": str(root / "teacher"), "student_model_path": str(root / "student"), "no_cuda": True,
        "precision": "fp32", "sample_size": 1000, "max_length": 100, "epochs": 2,
    }  # fmt: skip
    return Parameters(**usual | changes)


def shape_of(config: dict[str, Any], layers: int) -> ModelShape:
    shape = model_shape(config)
    assert shape is not None
    return dataclasses.replace(shape, layers=layers)


def phases(**changes: Any) -> dict[str, float]:
    config = Parameters(no_cuda=True, precision="fp32", compile_loss="off", **changes)
    shape = ModelShape({}, 10_000_000, 10, 1000, 64, 64, True)
    amounts = Amounts(1000, 100_000, 100_000, 100_000, 5_000, 100, exact=False)
    cache = "off" if config.teacher_cache == "off" else "exact"
    work = Work(amounts, 200, cache=cache, streams=config.teacher_streaming == "on")
    return phase_seconds(config, choose_compute(config), shape, shape, work, STAGES)


@pytest.mark.usefixtures("unmeasured")
def test_times_follow_from_what_is_to_be_done() -> None:
    usual = phases()
    assert set(usual) == {
        "check-env",
        "prepare-data",
        "teacher pass",
        "training",
        "control",
        "validate",
        "demo",
        "plot",
    }
    assert usual["teacher pass"] == pytest.approx(100, rel=0.02)  # Once, whatever the epochs.
    assert usual["training"] == pytest.approx(200_000 * (3e-3 + 3e-5 + 3e-5 + 1e-5), rel=0.2)
    assert phases(teacher_cache="off")["teacher pass"] == pytest.approx(200, rel=0.02)
    assert phases(teacher_precision="int8")["teacher pass"] == pytest.approx(50, rel=0.02)
    assert phases(teacher_streaming="on")["teacher pass"] > usual["teacher pass"]
    assert "teacher pass" not in phases(alpha=0.0, beta=1.0)
    assert phases(epochs=4)["training"] == pytest.approx(2 * usual["training"], rel=0.2)
    assert phases(checkpoint_interval=10)["training"] > usual["training"] + 15 * 5


@pytest.mark.usefixtures("unmeasured")
def test_the_control_trains_without_the_teacher() -> None:
    usual = phases(teacher_cache="exact")
    # 1000 texts in batches of 8, twice; no head of a teacher.
    assert usual["control"] == pytest.approx(200_000 * (3e-3 + 3e-5 + 3e-5) + 250 * (1e-2 + 0.012), rel=0.08)
    assert phases(epochs=4)["control"] == pytest.approx(2 * usual["control"], rel=0.2)
    assert phases(temperature=5.0)["control"] == usual["control"]
    # Black box trains on the teacher's texts as well, the control does not.
    black = phases(box_type="black")
    assert black["control"] == pytest.approx(usual["control"], rel=0.05)
    assert black["training"] > 1.5 * black["control"]


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, r"on: it takes about \d+:\d\d of \d+:\d\d, less than half of the whole run"),
        ({"control": True}, "on: --control"),
        ({"quality_gate": "better-than-control"}, "on: the quality gate"),
        ({"control": False}, "off: --no-control"),
        ({"skip_validation": True}, "off: nothing would compare it"),
        ({"alpha": 0.0, "beta": 1.0}, "off: alpha is 0"),
    ],
)
def test_the_plan_says_whether_there_is_a_control(
    models: Path, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    estimate = estimate_run(settings(models, **changes), tmp_path, STAGES)
    assert re.match(line, estimate["control"])
    on = line.startswith("on")
    assert ("control" in estimate["phases"]) is on
    assert estimate["total_seconds"] == pytest.approx(sum(estimate["phases"].values()), abs=0.1)
    without = estimate_run(settings(models, **{**changes, "control": False, "quality_gate": "off"}), tmp_path, STAGES)
    # Two checkpoints and two students of the training stay beside those of the control.
    assert estimate["disk_bytes"] - without["disk_bytes"] == on * 4 * estimate["student_parameters"] * (3 * 2 + 2)


@pytest.mark.usefixtures("unmeasured")
def test_a_control_that_does_not_fit_is_left_out_or_refused(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = estimate_run(settings(models), tmp_path, STAGES)
    usage = shutil.disk_usage
    # Beside the cache of the hidden states, which keeps a reserve.
    free = {"control": 0}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=free["control"]))
    plans = {}
    for missing in (0, 1):
        free["control"] = usual["disk_bytes"] - usual["teacher_cache_bytes"] - missing
        plans[missing] = estimate_run(settings(models, teacher_cache="off"), tmp_path, STAGES)
    assert plans[0]["control"].startswith("on: ")
    assert plans[1]["control"].startswith("off: it needs ")
    assert "control" not in plans[1]["phases"]
    assert plans[1]["refused"] is None
    asked = estimate_run(settings(models, teacher_cache="off", control=True), tmp_path, STAGES)
    assert "of disk are needed" in asked["refused"]


@pytest.mark.usefixtures("unmeasured")
def test_only_the_stages_that_would_run_are_timed(models: Path, tmp_path: Path) -> None:
    estimate = estimate_run(settings(models), tmp_path, ["validate"])
    assert set(estimate["phases"]) == {"validate"}
    assert estimate["total_seconds"] == pytest.approx(estimate["phases"]["validate"], abs=0.1)


@pytest.mark.usefixtures("unmeasured")
def test_a_teacher_block_by_block_takes_less_memory_and_more_disk(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = {
        mode: estimate_run(settings(models, teacher_cache="exact", teacher_streaming=mode), tmp_path, STAGES)
        for mode in ("off", "on", "auto")
    }
    for name in ("disk_bytes", "memory_bytes", "phases"):
        assert plans["auto"][name] == plans["off"][name]
    hidden_states = 1000 * 100 * 32 * 4
    assert plans["on"]["disk_bytes"] == plans["off"]["disk_bytes"] + hidden_states
    assert plans["on"]["memory_bytes"] <= plans["off"]["memory_bytes"]
    monkeypatch.setattr("distillkit.dry_run.inputs.free_memory_bytes", lambda device: 1000)
    short = estimate_run(settings(models, teacher_cache="exact"), tmp_path, STAGES)
    assert short["disk_bytes"] == plans["on"]["disk_bytes"]


def test_layers_are_told_from_what_a_call_takes_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([0.5, 0.7])
    monkeypatch.setattr(microbenchmarks, "seconds_of", lambda *_: next(found))
    config = tiny_model("gpt2", 300, layers=3).config.to_dict()
    compute = choose_compute(Parameters(no_cuda=True, precision="fp32"))
    assert microbenchmarks.single_token(shape_of(config, 12), compute) == pytest.approx(0.3 + 12 * 0.2)
    assert Timing(1.0, 2.0).of(3) == 7.0


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gpt_neox"])
def test_every_family_can_be_measured(family: str) -> None:
    compute = dataclasses.replace(choose_compute(Parameters(no_cuda=True, precision="fp32")))
    shape = shape_of(tiny_model(family, 300, layers=3).config.to_dict(), 3)
    forward = microbenchmarks.forward_per_token(shape, compute.teacher, compute, 32)
    training = microbenchmarks.training_per_token(shape, compute, 32, 4)
    assert min(forward, training) > 0


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_examples_longer_than_a_model_has_positions_for(models: Path, tmp_path: Path, role: str) -> None:
    tokenizer = tiny_tokenizer()
    short = save_model_folder(tmp_path / "short", tiny_model("gpt2", len(tokenizer), layers=2, context=32), tokenizer)
    config = settings(models, **{f"{role}_model_path": str(short)})
    assert estimate_run(config, tmp_path / "run", STAGES)["total_seconds"] > 0


def test_a_teacher_behind_a_server(models: Path, tmp_path: Path, unmeasured: None) -> None:
    """Requests and tokens are planned; what is computed here is the student alone."""
    served = {"teacher_model_path": None, "teacher_model": "openai:tiny", "teacher_url": "http://127.0.0.1:9/v1"}
    black = estimate_run(settings(models, **served, box_type="black"), tmp_path / "run", STAGES)
    assert black["server_requests_at_most"] == 1000
    assert black["server_prompt_tokens_at_most"] == 1000 * 50
    assert "unknown before its first answers" in black["server_time"]
    assert black["server_completion_tokens_at_most"] == 1000 * 99
    assert black["teacher_parameters"] is None
    assert black["teacher_cache_bytes"] == 0
    plain = estimate_run(settings(models, alpha=0.0, beta=1.0), tmp_path / "run", STAGES)
    assert black["memory_bytes"] == plain["memory_bytes"]
    assert set(black["phases"]) >= {"prepare-data", "training", "validate"}
    assert "teacher pass" not in black["phases"]
    white = estimate_run(settings(models, **served, temperature=1.0), tmp_path / "run", STAGES)
    assert (white["server_requests_at_most"], white["server_prompt_tokens_at_most"]) == (1000, 100_000)
    assert white["teacher_cache_bytes"] > 100_000 * 65
    unguided = estimate_run(settings(models, **served, box_type="black", alpha=0.0, beta=1.0), tmp_path / "run", STAGES)
    assert "server_requests_at_most" not in unguided


@pytest.mark.usefixtures("unmeasured")
def test_the_plan_follows_the_knobs_of_the_training(models: Path, tmp_path: Path) -> None:
    def planned(**changes: Any) -> dict[str, Any]:
        return estimate_run(settings(models, **changes), tmp_path, ["distill"])

    usual = planned()
    parameters = usual["student_parameters"]
    saved = {name: usual["memory_bytes"] - planned(optimizer=name)["memory_bytes"] for name in ("adafactor", "muon")}
    # The two moments of every weight are 8 bytes, a process holds a quarter more; Muon keeps one for some of them.
    assert saved["adafactor"] == pytest.approx(1.25 * 8 * parameters, rel=0.2)
    assert 0 < saved["muon"] < saved["adafactor"]
    deep = {"student_model_path": str(models / "teacher"), "batch_size": 128}
    kept, again = (planned(gradient_checkpointing=on, **deep) for on in (False, True))
    assert again["memory_bytes"] < kept["memory_bytes"]
    assert again["phases"]["training"] > kept["phases"]["training"]
    assert usual["early_stopping"] is None
    assert "3 held-out" in planned(early_stopping_patience=3)["early_stopping"]
    short = planned(max_steps=10)
    assert short["optimizer_steps_at_most"] == 10
    assert short["training_tokens_at_most"] == usual["training_tokens_at_most"] * 10 // usual["optimizer_steps_at_most"]
    assert short["phases"]["training"] < usual["phases"]["training"]


@pytest.mark.usefixtures("unmeasured")
def test_the_plan_says_what_one_of_several_processes_takes(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(**changes: Any) -> dict[str, Any]:
        return estimate_run(settings(models, **changes), tmp_path, ["distill"])

    alone = planned()
    assert alone["processes"] == 1
    for module in ("plan", "memory_model"):
        monkeypatch.setattr(f"distillkit.dry_run.{module}.process_count", lambda: 8)
    each = {name: planned(parallel=name, batch_size=32) for name in ("ddp", "fsdp")}
    assert each["ddp"]["processes"] == 8
    # 16 bytes a parameter; an eighth of 16, and 12 in which process 0 gathers a checkpoint. A process holds a quarter more.
    saved = each["ddp"]["memory_bytes"] - each["fsdp"]["memory_bytes"]
    assert saved == pytest.approx(1.25 * (16 - 2 - 12) * alone["student_parameters"], rel=1e-3)
    assert "8 processes cannot divide a step of 9 examples" in planned(batch_size=9)["refused"]
    on_policy = planned(batch_size=32, on_policy_fraction=0.5)
    assert "--on-policy-fraction and 8 processes exclude each other" in on_policy["refused"]


# --- on-policy steps --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unmeasured")
def test_times_of_on_policy_steps() -> None:
    """100 of 200 steps of 8 texts: a beginning of 50 tokens, 30 new ones, each of which takes a call of the student."""
    plain = {"teacher_cache": "off", "batch_size": 8, "epochs": 1, "max_length": 100}
    own = {**plain, "on_policy_fraction": 0.5, "on_policy_max_new_tokens": 30}
    usual, found = phases(**plain), phases(**own)
    assert "student writing" not in usual
    # Weights are read once for the 8 texts; the other seven cost their arithmetic, and each its row of the head.
    assert found["student writing"] == pytest.approx(100 * (30 * (1e-3 + 8e-5 + 7e-3) + 8 * 50 * 1e-3))
    assert found["teacher pass"] == pytest.approx(usual["teacher pass"] / 2 + 100 * 8 * 80 * 1e-3)
    # Without the texts of these steps, with those that the student writes; of them only what is new has rows.
    row = 3e-5 + 3e-5 + 1e-5
    more = 100 * 8 * (80 * 3e-3 + 30 * row) - 50_000 * (3e-3 + row)
    assert found["training"] - usual["training"] == pytest.approx(more)
    half = phases(**own, replay_buffer=100)
    assert half["student writing"] == pytest.approx(found["student writing"] / 2)
    assert half["training"] == pytest.approx(found["training"])


def test_the_plan_has_the_teacher_beside_its_cache(models: Path, tmp_path: Path) -> None:
    plain = settings(models, teacher_cache="exact")
    own = dataclasses.replace(plain, on_policy_fraction=0.25, on_policy_max_new_tokens=16)
    before, found = (estimate_run(config, tmp_path / "run", []) for config in (plain, own))
    assert found["memory_bytes"] > before["memory_bytes"]
    steps = found["optimizer_steps_at_most"]
    assert found["on_policy_steps"] == steps // 4
    assert found["sampled_tokens_at_most"] == steps // 4 * 8 * 16
    assert "on_policy_steps" not in before
