"""Which stages run, which are skipped, which are refused: the decisions, without any training."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distillkit.console import Console
from distillkit.errors import DistillkitError, PreconditionError
from distillkit.pipeline import due, running
from distillkit.pipeline.configuration import config_differences
from distillkit.pipeline.due import planned_stages
from distillkit.pipeline.opening import continue_command, create_or_continue, open_run
from distillkit.pipeline.running import Outcome, run_pipeline
from distillkit.run.directory import RunDirectory
from distillkit.settings.parameters import Parameters
from distillkit.settings.resolve import ResolvedConfig, resolve
from distillkit.stages import STAGES, StageResult, wanted_stages


@pytest.fixture
def resolved(tmp_path: Path) -> ResolvedConfig:
    return resolve({"dataset": "python-docs", "output_dir": str(tmp_path), "folder_name": "run"})


@pytest.fixture
def run(resolved: ResolvedConfig, tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", resolved)


class Stages:
    """Stages that only note that they ran, and write one file each."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, bool]] = []
        self.content = "one"
        self.extra: dict[str, str] = {}
        self.error: BaseException | None = None
        self.gate: str | None = None

    def load(self, name: str) -> Any:
        def work(config: Parameters, run: RunDirectory, console: Console, *, from_scratch: bool = False) -> StageResult:
            self.ran.append((name, from_scratch))
            if self.error is not None:
                raise self.error
            output = run.path / f"{name}.txt"
            output.write_text(self.content, encoding="utf-8")
            gate = self.gate if name == "validate" else None
            return StageResult([output], {"gate_failure": gate}, "done", gate_failure=gate)

        return SimpleNamespace(run=work, extra_inputs=lambda config, run: dict(self.extra))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.ran]


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stages]:
    made = Stages()
    for module in (due, running):
        monkeypatch.setattr(module, "load_stage", made.load)
    return made


CHAIN = ["check-env", "prepare-data", "distill", "validate"]


def go(resolved: ResolvedConfig, run: RunDirectory, names: list[str], **options: Any) -> Outcome:
    return run_pipeline(resolved, run, names, Console(quiet=True), **options)


@pytest.mark.parametrize(
    ("given", "after"),
    [
        ({}, ["control", "validate", "plot"]),
        ({"control": True}, ["control", "validate", "plot"]),
        ({"control": False}, ["validate", "plot"]),
        ({"skip_demo": False}, ["control", "validate", "demo", "plot"]),
        ({"skip_validation": True}, ["control", "plot"]),
        ({"save_plot": False}, ["control", "validate"]),
        ({"skip_validation": True, "save_plot": False, "control": False}, []),
    ],
)
def test_wanted_stages(given: dict[str, Any], after: list[str]) -> None:
    assert wanted_stages(Parameters(**given)) == ["check-env", "prepare-data", "distill", *after]


def test_stages_come_after_what_they_read() -> None:
    order = list(STAGES)
    for name, spec in STAGES.items():
        assert all(order.index(earlier) < order.index(name) for earlier in (*spec.after, *spec.reads))
        assert all(order.index(later) > order.index(name) for later in spec.then)


def test_the_continue_command_survives_a_shell() -> None:
    command = continue_command(Path("/a folder/it's $HOME"), "plot")
    assert shlex.split(command) == ["distillkit", "plot", "--run", "/a folder/it's $HOME"]


def test_complete_stages_are_skipped(resolved: ResolvedConfig, run: RunDirectory, stages: Stages) -> None:
    assert set(go(resolved, run, CHAIN).stages.values()) == {"complete"}
    assert set(go(resolved, run, CHAIN).stages.values()) == {"skipped"}
    assert stages.ran == [(name, False) for name in CHAIN]


def test_force_redoes_and_says_so_to_the_stage(resolved: ResolvedConfig, run: RunDirectory, stages: Stages) -> None:
    go(resolved, run, CHAIN)
    stages.ran.clear()
    go(resolved, run, ["distill"], force=True)
    assert stages.ran == [("distill", True)]


def test_a_cheap_stage_follows_and_a_dear_one_is_refused(
    resolved: ResolvedConfig, run: RunDirectory, stages: Stages
) -> None:
    go(resolved, run, CHAIN)
    stages.extra = {"data file": "other"}
    stages.ran.clear()
    with pytest.raises(PreconditionError, match="prepare-data was made from something else; changed since: data file"):
        go(resolved, run, CHAIN)
    assert stages.names == ["check-env"]
    go(resolved, run, ["validate"])
    assert stages.names == ["check-env", "validate"]


def test_a_new_result_makes_what_follows_stale(resolved: ResolvedConfig, run: RunDirectory, stages: Stages) -> None:
    go(resolved, run, CHAIN)
    stages.content = "two"
    go(resolved, run, ["prepare-data"], force=True)
    with pytest.raises(
        PreconditionError, match="distill was made from something else; changed since: result of prepare"
    ):
        go(resolved, run, ["distill"])
    stages.content = "one"
    go(resolved, run, ["prepare-data"], force=True)
    assert go(resolved, run, ["distill"]).stages == {"distill": "skipped"}, "the same result again is no change"


def test_what_need_not_be_there_is_read_where_it_is(
    resolved: ResolvedConfig, run: RunDirectory, stages: Stages
) -> None:
    """validate reads the control; its record says whether one was made."""

    def inputs() -> dict[str, str]:
        record = run.record("validate")
        assert record is not None
        return record.inputs

    go(resolved, run, CHAIN)
    assert "result of control" not in inputs()
    go(resolved, run, ["control"])
    assert planned_stages(["validate"], resolved.parameters, run, False) == [
        ("validate", "run again, changed: result of control")
    ]
    assert go(resolved, run, ["control", "validate"]).stages == {"control": "skipped", "validate": "complete"}
    assert inputs()["result of control"] == run.result_fingerprint("control")
    # A damaged one is made again by its own command, and before that not read.
    (run.path / "control.txt").write_text("tampered", encoding="utf-8")
    with pytest.raises(PreconditionError, match=r"validate reads the result of control, but control\.txt") as caught:
        go(resolved, run, ["validate"])
    assert caught.value.next_command == continue_command(run, "control")
    go(resolved, run, ["control"])
    # That of an earlier training is none.
    stages.content = "two"
    go(resolved, run, ["distill"], force=True)
    assert not run.holds("control")
    go(resolved, run, ["validate"])
    assert "result of control" not in inputs()


def test_a_damaged_result(resolved: ResolvedConfig, run: RunDirectory, stages: Stages) -> None:
    go(resolved, run, CHAIN)
    (run.path / "validate.txt").write_text("tampered", encoding="utf-8")
    assert go(resolved, run, ["validate"]).stages == {"validate": "complete"}, "cheap, so it is simply redone"
    (run.path / "distill.txt").write_text("tampered", encoding="utf-8")
    with pytest.raises(PreconditionError, match=r"the result of distill is damaged: .*distill\.txt") as caught:
        go(resolved, run, ["distill"])
    assert "--force" in str(caught.value.hint)
    with pytest.raises(PreconditionError, match="validate needs the result of distill, but"):
        go(resolved, run, ["validate"])


def test_a_failure_is_recorded_and_continued(resolved: ResolvedConfig, run: RunDirectory, stages: Stages) -> None:
    stages.error = DistillkitError("the disk is full\x1b[2J of hf_abcdefghijklmnop")
    with pytest.raises(DistillkitError, match="the disk is full"):
        go(resolved, run, ["check-env", "prepare-data"])
    record = RunDirectory.open(run.path).record("check-env")
    assert record is not None
    assert (record.status, record.error) == ("failed", "the disk is full of [secret]")
    stages.error = None
    assert go(resolved, run, CHAIN).stages == dict.fromkeys(CHAIN, "complete")


def test_a_stage_that_goes_on_took_what_all_its_attempts_took(
    resolved: ResolvedConfig, run: RunDirectory, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 107.0, 200.0, 203.5, 300.0, 302.0])
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: next(times)))
    stages.error = PreconditionError("stopped")
    with pytest.raises(PreconditionError, match="stopped"):
        go(resolved, run, ["prepare-data"])
    record = run.record("prepare-data")
    assert record is not None
    assert record.metrics == {"seconds": 7.0}
    stages.error = None
    go(resolved, run, ["prepare-data"])
    assert run.manifest.stages["prepare-data"].metrics["seconds"] == 10.5
    # What is done anew is not what went on.
    go(resolved, run, ["prepare-data"], force=True)
    assert run.manifest.stages["prepare-data"].metrics["seconds"] == 2.0
    assert run.begin_stage("prepare-data", {}) == 0, "it had come to its end"


def test_a_killed_process_leaves_running_which_is_no_result(
    resolved: ResolvedConfig, run: RunDirectory, stages: Stages
) -> None:
    go(resolved, run, ["prepare-data"])
    run.begin_stage("distill", {})
    with pytest.raises(PreconditionError, match="validate needs distill, which is running"):
        go(resolved, run, ["validate"])


def test_every_input_of_a_stage_is_recorded(resolved: ResolvedConfig, run: RunDirectory, stages: Stages) -> None:
    stages.extra = {"data file": "abc"}
    go(resolved, run, ["prepare-data", "distill"])
    inputs = {name: record.inputs for name, record in run.manifest.stages.items()}
    assert {"teacher_model", "sample_size", "seed", "data file"} <= inputs["prepare-data"].keys()
    assert {"temperature", "batch_size", "result of prepare-data"} <= inputs["distill"].keys()
    assert "temperature" not in inputs["prepare-data"]
    assert json.loads(inputs["distill"]["temperature"]) == 2.0


def test_more_epochs_are_no_other_run_and_fewer_are(tmp_path: Path, run: RunDirectory, stages: Stages) -> None:
    def with_epochs(number: int, **others: Any) -> ResolvedConfig:
        return resolve({"dataset": "python-docs", "output_dir": str(tmp_path), "folder_name": "run", "epochs": number, **others})  # fmt: skip

    go(with_epochs(2), run, ["prepare-data", "distill"])
    stages.ran.clear()
    assert go(with_epochs(3), run, ["prepare-data", "distill"]).stages == {
        "prepare-data": "skipped",
        "distill": "complete",
    }
    assert stages.ran == [("distill", False)]
    with pytest.raises(PreconditionError, match="epochs: 3 -> 2"):
        go(with_epochs(2), run, ["distill"])
    with pytest.raises(PreconditionError, match="seed: 42 -> 1"):
        go(with_epochs(4, seed=1), run, ["distill"])
    assert RunDirectory.open(run.path).manifest.config["epochs"] == 3, "a refused configuration leaves no trace"


def test_force_alone_does_not_change_the_configuration_of_one_stage(
    resolved: ResolvedConfig, run: RunDirectory, stages: Stages
) -> None:
    go(resolved, run, ["prepare-data", "distill"])
    other = resolve({"dataset": "python-docs", "batch_size": 4})
    with pytest.raises(PreconditionError, match="batch_size: 8 -> 4"):
        go(other, run, ["distill"], force=True)
    go(other, run, ["distill"], force=True, may_change_config=True)
    assert RunDirectory.open(run.path).manifest.config["batch_size"] == 4
    assert "batch_size: 4" in (run.path / "config.yaml").read_text(encoding="utf-8")


def test_what_no_result_depends_on_may_change(resolved: ResolvedConfig, run: RunDirectory, stages: Stages) -> None:
    go(resolved, run, CHAIN)
    old = resolved.as_dict()
    others = {"skip_demo": False, "save_plot": False, "output_dir": "y", "quality_gate": "off", "epochs": 3}
    assert config_differences(run, {**old, **others}) == []
    assert config_differences(run, {**old, "temperature": 3.0}) == ["temperature: 2.0 -> 3.0"]


def test_what_no_stage_has_used_yet_may_change(resolved: ResolvedConfig, run: RunDirectory, stages: Stages) -> None:
    """prepare-data takes only what it uses: the rest is given when the run goes on."""

    def given(**values: Any) -> ResolvedConfig:
        return resolve({"dataset": "python-docs", **values})

    go(resolved, run, ["prepare-data"])
    go(given(batch_size=4, temperature=3.0), run, ["prepare-data", "distill"])
    assert RunDirectory.open(run.path).manifest.config["batch_size"] == 4
    with pytest.raises(PreconditionError, match="sample_size: 1000 -> 500"):
        go(given(batch_size=4, temperature=3.0, sample_size=500), run, ["distill"])
    with pytest.raises(PreconditionError, match="batch_size: 4 -> 2"):
        go(given(batch_size=2, temperature=3.0), run, ["distill"])


def test_a_failed_gate_is_remembered_when_skipped(resolved: ResolvedConfig, run: RunDirectory, stages: Stages) -> None:
    stages.gate = "quality gate 'not-worse': the student is worse than before"
    assert go(resolved, run, CHAIN).gate_failure == stages.gate
    again = go(resolved, run, CHAIN)
    assert (again.stages["validate"], again.gate_failure) == ("skipped", stages.gate)


def test_paths_of_a_run_win_again_when_it_is_continued(tmp_path: Path, stages: Stages) -> None:
    for name in ("teacher", "other"):
        (tmp_path / name).mkdir()
    given = {"teacher_model_path": str(tmp_path / "teacher"), "dataset": "python-docs"}
    first = resolve({**given, "output_dir": str(tmp_path), "folder_name": "run"})
    go(first, RunDirectory.create(tmp_path / "run", first), ["prepare-data"])
    found, continued = open_run(lambda base: resolve({}, base=base), str(tmp_path / "run"), str(tmp_path))
    assert continued.parameters == first.parameters
    assert go(continued, found, ["prepare-data"]).stages == {"prepare-data": "skipped"}
    reproduced = resolve({}, config_file=tmp_path / "run" / "config.yaml")
    assert reproduced.parameters.teacher_model_path == str(tmp_path / "teacher")


def test_a_link_as_run_folder_is_refused(resolved: ResolvedConfig, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PreconditionError, match="is a link that leads elsewhere") as caught:
        create_or_continue(resolved)
    assert caught.value.exit_code == 2
