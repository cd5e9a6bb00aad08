"""The control as users meet it: in a whole run, afterwards, left out, stale, damaged, in the way of a small disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from distillkit import DistillkitError, PreconditionError, distill_models
from distillkit.cli import main as cli
from distillkit.console import Console
from distillkit.data.examples import load_examples
from distillkit.pipeline.running import run_pipeline
from distillkit.run.directory import RunDirectory
from distillkit.settings.resolve import Layer, resolve
from distillkit.storage import bytes_below
from distillkit.training import held_out_score

Distil = Callable[..., Any]
VALIDATED = {"skip_validation": False, "quality_gate": "off"}


def manifest(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text(encoding="utf-8"))


def recorded(run: Path) -> dict[str, Any]:
    """What the manifest says that the control came to."""
    return manifest(run)["stages"]["control"]["metrics"]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def log(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def call(capfd: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> SimpleNamespace:
    capfd.readouterr()
    assert cli.main([str(item) for item in arguments]) == code
    out, err = capfd.readouterr()
    return SimpleNamespace(out=out, err=err)


@pytest.fixture(scope="module")
def made_run(distil: Distil) -> Path:
    """A run of two epochs with its control, validated. Tests take copies."""
    return distil(control=True, epochs=2, temperature=1.0, **VALIDATED).run_directory


@pytest.fixture
def made(made_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_run, tmp_path / "made"))


@pytest.fixture(scope="module")
def alone_run(distil: Distil) -> Path:
    """The same without a control."""
    return distil(epochs=2, save_plot=True, temperature=1.0, **VALIDATED).run_directory


@pytest.fixture
def alone(alone_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(alone_run, tmp_path / "alone"))


# --- what it is ------------------------------------------------------------------------------------------------------


def test_it_is_the_run_with_alpha_0(distil: Distil, made_run: Path) -> None:
    """Bit for bit: the same start, batches, schedule, points of evaluation and choice of the best."""
    plain = distil(alpha=0.0, epochs=2).run_directory
    for which in ("best", "final"):
        assert weights(made_run / "control" / "student" / which) == weights(plain / "student" / which)
        assert weights(made_run / "student" / which) != weights(plain / "student" / which)
    assert log(made_run / "control") == log(plain)
    assert [line["step"] for line in log(made_run / "control")] == [line["step"] for line in log(made_run)]
    assert [line["learning_rate"] for line in log(made_run / "control") if "loss" in line] == [
        line["learning_rate"] for line in log(made_run) if "loss" in line
    ]


def test_black_box_has_its_control_on_the_true_texts(distil: Distil) -> None:
    for alpha in (0.5, 1.0):
        result = distil(box_type="black", alpha=alpha, control=True)
        plain = distil(box_type="black", alpha=0.0)
        control = result.run_directory / "control"
        assert weights(control / "student" / "final") == weights(plain.run_directory / "student" / "final")
        texts = len(load_examples(result.run_directory / "data" / "train"))
        assert recorded(result.run_directory)["train"]["steps"] == texts // 4


def test_neither_teacher_nor_its_cache_is_opened(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("the teacher was loaded")

    monkeypatch.setattr("distillkit.run.pair.ModelPair.load_teacher", refuse)
    monkeypatch.setattr("distillkit.training.inputs.open_source", refuse)
    monkeypatch.setattr("distillkit.training.inputs.TeacherLoader", refuse)
    run = RunDirectory.open(alone)
    # Without the validation after it, which needs the teacher.
    resolved = resolve({"control": True}, base=Layer("this run", run.manifest.config))
    run_pipeline(resolved, run, ["control"], Console(quiet=True))
    assert recorded(alone)["made"] is True


def test_the_start_is_scored_once(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of the run itself, whose score is known."""
    scored: list[int] = []
    real = held_out_score.score
    monkeypatch.setattr(held_out_score, "score", lambda *given, **named: scored.append(1) or real(*given, **named))
    run = RunDirectory.open(alone)
    run_pipeline(
        resolve({"control": True}, base=Layer("this run", run.manifest.config)), run, ["control"], Console(quiet=True)
    )
    steps = [line["step"] for line in log(alone / "control") if "eval_bits_per_byte" in line]
    assert steps[0] == 0
    assert len(scored) == len(steps) - 1


# --- what is told of it ----------------------------------------------------------------------------------------------


def test_validation_card_pictures_and_result(made_run: Path, made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    validation = json.loads((made_run / "validation.json").read_text(encoding="utf-8"))
    assert {"bits_per_byte", "perplexity", "parameters"} <= validation["control"].keys()
    gain = validation["teacher_gain"]
    assert gain["bits_per_byte"] == validation["control"]["bits_per_byte"] - validation["after"]["bits_per_byte"]
    assert gain["ci95"][0] <= gain["bits_per_byte"] <= gain["ci95"][1]
    card = (made_run / "student" / "best" / "README.md").read_text(encoding="utf-8")
    assert "| the same without the teacher |" in card
    assert f"- The teacher's part of it: {gain['bits_per_byte']:.4f} bits per byte, 95% interval" in card
    # The control's own card does not claim a teacher.
    assert (
        "Fine-tuning on the true tokens only" in (made_run / "control" / "student" / "best" / "README.md").read_text()
    )
    shown = call(capfd, "validate", "--run", made_run).out
    assert "control (no teacher)" in shown
    assert "without the teacher the same training" in " ".join(shown.split())
    told = json.loads(call(capfd, "validate", "--run", made_run, "--json").out)["result"]
    assert told["control"] == validation["control"]
    assert told["teacher_gain"] == gain
    call(capfd, "plot", "--run", made)
    for picture, words in (("score", "no teacher -->"), ("comparison", "no -->")):
        assert f"<!-- {words}" in (made / "plots" / f"{picture}.svg").read_text(encoding="utf-8")


def test_a_run_without_one_is_as_it_was(alone_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    validation = json.loads((alone_run / "validation.json").read_text(encoding="utf-8"))
    assert not {"control", "teacher_gain"} & validation.keys()
    assert not (alone_run / "control").exists()
    assert "teacher's part" not in (alone_run / "student" / "best" / "README.md").read_text(encoding="utf-8")
    done = json.loads(call(capfd, "validate", "--run", alone_run, "--json").out)
    assert done["stages"]["validate"]["state"] == "skipped"
    assert done["result"]["control"] is done["result"]["teacher_gain"] is None


# --- made later ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["control", "distill"])
def test_made_later(alone: Path, made_run: Path, capfd: pytest.CaptureFixture[str], command: str) -> None:
    options = ["--control"] if command == "distill" else []
    done = json.loads(call(capfd, command, "--run", alone, *options, "--json").out)
    redone = {name: stage["state"] for name, stage in done["stages"].items()}
    assert {name for name, state in redone.items() if state == "complete"} == {"control", "validate", "plot"}
    assert done["result"]["teacher_gain"] is not None
    assert weights(alone / "control" / "student" / "best") == weights(made_run / "control" / "student" / "best")
    assert manifest(alone)["config"]["control"] is True
    again = json.loads(call(capfd, "distill", "--run", alone, "--json").out)
    assert {stage["state"] for stage in again["stages"].values()} == {"skipped"}


def test_a_finished_run_is_not_trained_unasked(alone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As one of an earlier version, which knew of no control."""
    config = {"control": None}
    result = distill_models(run=alone, quiet=True, **config)
    assert result.control is None
    assert recorded(alone)["made"] is False
    assert "it can be made later: distillkit control" in recorded(alone)["why"]
    planned = json.loads(call(capfd, "distill", "--run", alone, "--dry-run", "--json").out)
    assert planned["stages"]["control"].startswith("skip, not made: the run has its verdict")
    assert planned["stages"]["validate"] == planned["stages"]["plot"] == "skip, complete"


def test_the_program_decides_and_keeps_to_it(distil: Distil, capfd: pytest.CaptureFixture[str]) -> None:
    result = distil(control=None, skip_validation=False, quality_gate="off", quiet=False)
    said = " ".join(capfd.readouterr().err.split())
    assert "control: made: it takes about" in said
    assert "less than half of the whole run" in said
    assert recorded(result.run_directory)["made"] is True
    assert result.teacher_gain is not None
    note = json.loads((result.run_directory / "control" / "decision.json").read_text(encoding="utf-8"))
    assert note["made"] is True
    # What is there is what was asked for.
    before = weights(result.run_directory / "control" / "student" / "best")
    done = json.loads(call(capfd, "distill", "--run", result.run_directory, "--control", "--json").out)
    assert {stage["state"] for stage in done["stages"].values()} == {"skipped"}
    assert weights(result.run_directory / "control" / "student" / "best") == before


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"alpha": 0.0}, "alpha is 0"), ({"skip_validation": True}, "nothing would compare it")],
    ids=["alpha 0", "no validation"],
)
def test_where_it_would_say_nothing_it_is_not_made(distil: Distil, settings: dict[str, Any], why: str) -> None:
    result = distil(**{**VALIDATED, "control": None, **settings})
    assert recorded(result.run_directory)["made"] is False
    assert why in recorded(result.run_directory)["why"]
    assert result.control is None
    assert not (result.run_directory / "control").exists()


# --- it belongs to one training --------------------------------------------------------------------------------------


def test_more_epochs_continue_it(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = call(capfd, "distill", "--run", made, "--epochs", 3)
    assert done.err.count("continuing from step 8 of 12") == 2
    assert [line["step"] for line in log(made / "control")] == [line["step"] for line in log(made)]
    assert len(list((made / "control" / "checkpoints").iterdir())) == 2


def test_another_training_has_another_control_or_none(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Only what is learned from the teacher is another: the control stays, and is compared again.
    before = weights(made / "control" / "student" / "best")
    done = call(capfd, "distill", "--run", made, "--temperature", 3, "--force", "--no-control", "--no-save-plot")
    assert "control" not in json.loads((made / "validation.json").read_text(encoding="utf-8"))
    done = call(capfd, "distill", "--run", made, "--control")
    assert "continuing from step 8 of 8" in done.err
    assert weights(made / "control" / "student" / "best") == before
    # With another rate it is made anew.
    briefly = ("--skip-validation", "--no-save-plot")
    call(capfd, "distill", "--run", made, "--learning-rate", 5e-4, "--force", "--no-control", *briefly)
    done = call(capfd, "distill", "--run", made, "--control")
    assert "the control that is here belongs to another training: it is made anew" in " ".join(done.err.split())
    assert weights(made / "control" / "student" / "best") != before


# --- the gate --------------------------------------------------------------------------------------------------------


def test_the_gate_needs_a_control(alone: Path, distil: Distil, capfd: pytest.CaptureFixture[str]) -> None:
    gate = ("--quality-gate", "better-than-control")
    refused = call(capfd, "distill", "--run", alone, "--no-control", *gate, code=2)
    assert "--no-control and --quality-gate better-than-control exclude each other" in refused.err
    # Without a word on the control, validate alone cannot make one.
    config = json.loads((alone / "manifest.json").read_text(encoding="utf-8"))["config"]
    assert config["control"] is False
    distill_models(run=alone, control=None, quiet=True)
    missing = call(capfd, "validate", "--run", alone, *gate, code=3)
    assert "this run has no control to compare the student with" in missing.err
    assert missing.err.splitlines()[-1] == f"continue with: distillkit control --run {alone}"
    # It is made, and says what the gate finds.
    done = call(capfd, "control", "--run", alone, "--json", code=4)
    assert json.loads(done.out)["status"] == "quality gate failed"
    assert "its control, trained without the teacher" in done.err
    # A whole run with this gate makes its own, whatever it costs.
    made = distil(control=None, quality_gate="off", skip_validation=False)
    assert made.teacher_gain is not None


# --- damage and disks ------------------------------------------------------------------------------------------------


def test_a_damaged_control(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    best = made / "control" / "student" / "best" / "model.safetensors"
    whole = best.read_bytes()
    best.write_bytes(whole[:-1] + b"x")
    refused = call(capfd, "validate", "--run", made, "--force", code=3)
    assert "validate reads the result of control, but" in refused.err
    refused = call(capfd, "control", "--run", made, code=3)
    assert "the best student is damaged" in refused.err
    assert refused.err.splitlines()[-1] == f"continue with: distillkit control --run {made} --force"
    call(capfd, "control", "--run", made, "--force")
    assert best.read_bytes() == whole
    # The last one can be had from its checkpoint.
    final = made / "control" / "student" / "final" / "model.safetensors"
    final.unlink()
    done = call(capfd, "distill", "--run", made)
    assert "control (control/student/final/model.safetensors is missing)" in done.err
    assert load_file(final).keys() == load_file(best).keys()


def test_a_control_that_does_not_fit_on_the_disk(
    alone_run: Path, distil: Distil, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage
    parameters = json.loads((alone_run / "validation.json").read_text(encoding="utf-8"))["after"]["parameters"]
    # What the training may take at one time, but not what it leaves beside that of the control.
    room = 4 * parameters * 13

    def of(path: Any) -> Any:
        used = bytes_below(tmp_path / "run" / "student") + bytes_below(tmp_path / "run" / "checkpoints")
        return usage(path)._replace(free=max(0, room - used))

    monkeypatch.setattr(shutil, "disk_usage", of)
    settings = {"output_dir": tmp_path, "folder_name": "run", "teacher_cache": "off"}
    with pytest.raises(DistillkitError, match="of disk are needed for checkpoints and students"):
        distil(control=True, **settings)
    shutil.rmtree(tmp_path / "run")
    result = distil(control=None, **settings, **VALIDATED)
    assert recorded(result.run_directory)["made"] is False
    assert "of disk" in recorded(result.run_directory)["why"]
    with pytest.raises(DistillkitError, match="of disk are needed") as caught:
        distill_models(run=result.run_directory, control=True, quiet=True)
    assert not isinstance(caught.value, PreconditionError)
