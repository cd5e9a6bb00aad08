"""`--report-to`: what trackers are told, read from their own files; nothing leaves this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillkit import PreconditionError, UsageError
from distillkit.training import trackers

Distil = Callable[..., Any]
LOSSES = (
    "loss",
    "soft_loss",
    "hard_loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "teacher_tokens_per_second",
)


def metrics(result: Any) -> list[dict[str, Any]]:
    text = (result.run_directory / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard would draw: by name, the value of each step."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = event_accumulator.EventAccumulator(str(folder))
    read.Reload()
    return {
        name: {event.step: event.value for event in read.Scalars(name)} for name in read.Tags()["scalars"]
    }  # fmt: skip


def assert_told(told: dict[str, dict[int, float]], result: Any, train: str, evaluated: str) -> None:
    """Every line of metrics.jsonl is there, and the rates."""
    for line in metrics(result):
        for name in ("loss", "soft_loss", "hard_loss", "learning_rate"):
            if name in line:
                assert told[f"{train}{name}"][line["step"]] == pytest.approx(line[name], rel=1e-5)
        if "eval_bits_per_byte" in line:
            assert told[evaluated][line["step"]] == pytest.approx(line["eval_bits_per_byte"], rel=1e-5)
    for name in LOSSES:
        assert told[f"{train}{name}"][1] > 0


def test_tensorboard(distil: Distil, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a control, and after more epochs in the same place; on standard output there is nothing of it."""
    pytest.importorskip("tensorboard")
    settings: dict[str, Any] = {"output_dir": tmp_path, "folder_name": "told", "quiet": False}
    result = distil(report_to="tensorboard", control=True, **settings)
    folder = result.run_directory / "trackers" / "tensorboard"
    assert_told(scalars(folder), result, "train/", "eval/bits_per_byte")
    control = scalars(result.run_directory / "control" / "trackers" / "tensorboard")
    assert "train/soft_loss" in control
    assert "train/teacher_tokens_per_second" not in control
    text = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b'"temperature": 2.0' in text
    assert str(tmp_path).encode() not in text
    assert capsys.readouterr().out == ""
    longer = distil(report_to="tensorboard", control=True, epochs=2, **settings)
    assert_told(scalars(folder), longer, "train/", "eval/bits_per_byte")
    assert set(scalars(folder)["train/loss"]) == set(range(1, 9))


def test_mlflow(distil: Distil, tmp_path: Path) -> None:
    """A local file store; a run that goes on is the same there."""
    mlflow = pytest.importorskip("mlflow")
    settings: dict[str, Any] = {"output_dir": tmp_path, "folder_name": "told", "report_to": "mlflow"}
    result = distil(**settings)
    longer = distil(epochs=2, **settings)
    store = result.run_directory / "trackers" / "mlflow"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = mlflow.MlflowClient(store.absolute().as_uri())
        experiment = client.get_experiment_by_name("distillkit")
        (run,) = client.search_runs([experiment.experiment_id])
        told = {
            name: {entry.step: entry.value for entry in client.get_metric_history(run.info.run_id, name)}
            for name in run.data.metrics
        }
    assert (run.info.run_name, run.info.status) == ("told", "FINISHED")
    assert run.data.params["temperature"] == "2.0"
    assert_told(told, longer, "", "eval_bits_per_byte")
    assert set(told["loss"]) == set(range(1, 9))
    assert not mlflow.is_tracking_uri_set()
    assert "MLFLOW_ALLOW_FILE_STORE" not in os.environ


def test_wandb_offline(distil: Distil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts, one run; without a key and not offline it is refused before anything is computed."""
    wandb = pytest.importorskip("wandb")
    settings: dict[str, Any] = {"output_dir": tmp_path, "folder_name": "told", "report_to": "wandb"}
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_LOG_MODEL", "end")
    result = distil(**settings)
    distil(epochs=2, **settings)
    name = json.loads((result.run_directory / "trackers" / "ids.json").read_text(encoding="utf-8"))["wandb"]
    files = sorted((result.run_directory / "trackers" / "wandb").glob(f"wandb/offline-run-*-{name}/run-{name}.wandb"))
    assert len(files) == 2
    for file in files:
        content = file.read_bytes()
        for term in (
            b"train/soft_loss",
            b"train/hard_loss",
            b"eval/bits_per_byte",
            b"teacher_tokens_per_second",
            b"told",
        ):
            assert term in content
        assert os.environ.get("USER", "no such user").encode() not in content or os.environ.get("USER") == "root"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(wandb, "api", type("Api", (), {"api_key": None})())
    with pytest.raises(PreconditionError, match="nobody is logged in to wandb"):
        distil(report_to="wandb", output_dir=tmp_path, folder_name="refused")
    assert not (tmp_path / "refused" / "data").exists()


def test_a_tracker_that_fails_is_given_up(
    distil: Distil, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of a training it is left, once and in one line; where it cannot be opened the run is refused."""
    from transformers import TrainerCallback

    class Failing(TrainerCallback):
        told: list[dict[str, float]] = []  # noqa: RUF012

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            self.told.append(logs)
            print("something on standard output")
            if state.global_step == 2:
                raise ConnectionError("the server is gone\nand this is why")

    def opened(opening: trackers.Opening) -> trackers.Opened:
        arguments = trackers.ToldArguments(opening.run_name, opening.told)
        return trackers.Opened(Failing(), arguments, "known", lambda end: closed.append(end))

    closed: list[str] = []
    monkeypatch.setitem(trackers._OPENERS, "mlflow", opened)
    monkeypatch.setattr(trackers, "REQUIREMENTS", {"mlflow": "torch"})
    result = distil(report_to="mlflow", quiet=False)
    assert result.metrics["train"]["steps"] == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("mlflow is told no more of this training: the server is gone") == 1
    assert closed == ["finished"]
    assert [line["soft_loss"] for line in Failing.told if "loss" in line] == [
        line["soft_loss"] for line in metrics(result)[:3] if "loss" in line
    ]

    def refuses(opening: trackers.Opening) -> trackers.Opened:
        raise ConnectionError("no such server")

    monkeypatch.setitem(trackers._OPENERS, "mlflow", refuses)
    with pytest.raises(PreconditionError, match="--report-to mlflow: it cannot be opened: no such server"):
        distil(report_to="mlflow")


def test_what_is_refused(distil: Distil, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'tensorbord' is none of tensorboard, wandb, trackio, mlflow, none") as caught:
        distil(report_to="tensorbord")
    assert "'tensorboard'" in str(caught.value.hint)
    with pytest.raises(UsageError, match="none stands beside mlflow"):
        distil(report_to="mlflow,none")
    monkeypatch.setitem(trackers.REQUIREMENTS, "mlflow", "distillkit-absent-library>=2.1")
    with pytest.raises(
        PreconditionError, match=r"--report-to mlflow needs 'distillkit-absent-library>=2\.1'"
    ) as missing:
        distil(report_to="mlflow", install_deps=False, output_dir=tmp_path, folder_name="missing")
    assert "pip install" in str(missing.value.hint)
    assert not (tmp_path / "missing" / "data").exists()


def test_no_command_line_is_told(distil: Distil) -> None:
    from distillkit.settings.parameters import Parameters

    told = trackers.told_configuration(
        Parameters(box_type="black", keep_answers="run:judge --key 123", output_dir="/home/me")
    )
    assert told["keep_answers"] == "run:…"
    assert "123" not in json.dumps(told)
    assert not {"output_dir", "folder_name"} & set(told)
