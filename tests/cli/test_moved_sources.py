"""A run that was made with relative paths goes on from any folder; what has moved is said, and may be named anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from settings_file import settings_file

from distillkit.cli import main as cli
from distillkit.run.manifest import load_manifest, save_manifest

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], offline: None) -> Call:
    """`call("distill", …)` -> exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def numbers(small: dict[str, Any], tmp_path: Path) -> list[str]:
    """The settings of a small run, as a file outside the project."""
    (tmp_path / "settings").mkdir()
    return ["--config", str(settings_file(tmp_path / "settings", **small))]


@pytest.fixture
def project(pair: SimpleNamespace, tmp_path: Path) -> Path:
    """A folder with copies of the models and texts."""
    folder = tmp_path / "project"
    shutil.copytree(pair.teacher, folder / "models" / "big")
    shutil.copytree(pair.student, folder / "models" / "small")
    shutil.copy(pair.texts, folder / "texts.txt")
    (tmp_path / "elsewhere").mkdir()
    return folder


RELATIVE = [
    "--teacher-model-path", "models/big", "--student-model", "./models/small", "--dataset", "texts.txt", "--folder-name", "run",
]  # fmt: skip


def states(out: str) -> dict[str, str]:
    return {name: stage["state"] for name, stage in json.loads(out)["stages"].items()}


def test_a_run_made_with_relative_paths_goes_on_from_anywhere(
    call: Call, project: Path, numbers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    code, _, said = call("distill", *RELATIVE, *numbers)
    assert code == 0, said
    run = project / "output" / "run"
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, out, said = call("distill", "--run", run, "--epochs", "2", "--json")
    assert code == 0, said
    assert states(out) == {"check-env": "skipped", "prepare-data": "skipped", "distill": "complete"}
    # The run itself may be moved too.
    moved = Path(shutil.move(run, tmp_path / "elsewhere" / "kept"))
    code, out, said = call("validate", "--run", moved, "--json")
    assert (code, states(out)) == (0, {"validate": "complete"}), said
    # Its config.yaml makes the same run again, from here.
    config = yaml.safe_load((moved / "config.yaml").read_text())
    assert {config["teacher_model_path"], config["student_model"], config["dataset"]} == {
        str(project / "models/big"), str(project / "models/small"), str(project / "texts.txt"),
    }  # fmt: skip
    code, out, said = call("prepare-data", "--config", moved / "config.yaml", "--folder-name", "again")
    assert code == 0, said
    for part in ("train", "test"):
        first, second = (list((folder / "data" / part).glob("*.arrow")) for folder in (moved, Path("output/again")))
        assert first[0].read_bytes() == second[0].read_bytes()


def test_what_has_moved_is_said_and_may_be_named_anew(
    call: Call, project: Path, numbers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert call("distill", *RELATIVE, *numbers)[0] == 0
    run = project / "output" / "run"
    texts = shutil.move(project / "texts.txt", tmp_path / "elsewhere" / "texts.txt")
    code, _, said = call("distill", "--run", run)
    assert code == 2
    assert f"{run} was made from {project / 'texts.txt'} (dataset); it is not there" in said
    assert "--dataset-path …" in said
    code, out, said = call("distill", "--run", run, "--dataset-path", texts, "--json")
    assert (code, set(states(out).values())) == (0, {"skipped"}), said
    models = shutil.move(project / "models", tmp_path / "elsewhere" / "models")
    code, _, said = call("validate", "--run", run)
    assert code == 2
    assert f"was made from {project / 'models/big'} (teacher_model_path); it is not there" in said
    given = ("--teacher-model-path", Path(models, "big"), "--student-model-path", Path(models, "small"))
    code, out, said = call("distill", "--run", run, *given, "--epochs", "2", "--json")
    assert code == 0, said
    assert states(out) == {"check-env": "complete", "prepare-data": "skipped", "distill": "complete"}
    # Another place of something else is something else.
    Path(texts).write_text(Path(texts).read_text() + "One more line.\n")
    other = shutil.copy(texts, tmp_path / "texts.txt")
    code, _, said = call("distill", "--run", run, "--dataset-path", other)
    assert code == 3
    assert "was made with another configuration (dataset_path" in said


def test_an_older_run_with_relative_paths_goes_on_from_its_own_folder(
    call: Call, project: Path, numbers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert call("distill", *RELATIVE, *numbers)[0] == 0
    run = project / "output" / "run"
    manifest = load_manifest(run)
    old = {"teacher_model_path": "models/big", "student_model": "./models/small", "dataset": "texts.txt"}
    manifest.config.update(old)
    manifest.stages["prepare-data"].inputs.update({name: json.dumps(value) for name, value in old.items()})
    manifest.stages["check-env"].inputs["models"] = "models/big / ./models/small"
    save_manifest(run, manifest)
    code, out, said = call("distill", "--run", run, "--json")
    assert (code, set(states(out).values())) == (0, {"skipped"}), said
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, said = call("distill", "--run", run)
    assert code == 2
    assert "seen from the folder in which the run was made; it is not there" in said
    monkeypatch.chdir(project)
    code, out, said = call("distill", *RELATIVE, *numbers, "--json")
    assert (code, {name: state for name, state in states(out).items() if name != "check-env"}) == (
        0, {"prepare-data": "skipped", "distill": "skipped"},
    ), said  # fmt: skip
    assert load_manifest(run).config["dataset"] == str(project / "texts.txt")


def test_home_folders_and_links_keep_their_meaning(
    call: Call, project: Path, numbers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(project))
    (tmp_path / "link").symlink_to(project / "models")
    monkeypatch.chdir(tmp_path / "elsewhere")
    given = [
        "--teacher-model-path",
        "~/models/big",
        "--student-model",
        "../link/small",
        "--dataset-path",
        "../link/../texts.txt",
    ]
    code, _, said = call("prepare-data", *given, *numbers, "--output-dir", tmp_path / "o", "--folder-name", "run")
    assert code == 0, said
    config = load_manifest(tmp_path / "o" / "run").config
    assert config["teacher_model_path"] == str(project / "models/big")
    assert Path(config["dataset_path"]).samefile(project / "texts.txt")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert call("prepare-data", "--run", tmp_path / "o" / "run")[0] == 0


def test_runs_among_the_texts_are_no_texts(
    call: Call, project: Path, numbers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The texts in the current folder, the runs in ./output, a model beside them."""
    monkeypatch.chdir(project)
    given = ["--teacher-model-path", "models/big", "--student-model-path", "models/small", "--dataset-path", "."]
    code, _, said = call("distill", *given, *numbers, "--folder-name", "run")
    assert code == 0, said
    run = project / "output" / "run"
    assert set(json.loads((run / "data" / "stats.json").read_text())["fingerprint"]) == {"texts.txt"}
    # It does not change its own texts, and neither does another run, there or elsewhere.
    assert call("prepare-data", *given, *numbers, "--folder-name", "other")[0] == 0
    shutil.copytree(run, project / "kept" / "a-run")
    code, out, said = call("distill", "--run", run, "--json")
    assert (code, set(states(out).values())) == (0, {"skipped"}), said
    code, _, said = call("prepare-data", "--dataset-path", run, "--teacher-model-path", "models/big", *numbers)
    assert code == 2
    assert "is a run of this program, not a folder of texts" in said
