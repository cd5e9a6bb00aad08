"""Launchers, streams, and inputs that lie where the run writes: refused or dealt with before anything is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distillkit import UsageError, distill_models
from distillkit.cli import main as cli
from distillkit.storage import files_below


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_below(folder)}


# --- launchers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, {"LOCAL_RANK": "1"}])
def test_one_of_several_processes_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], cli_pair: list[str], tmp_path: Path,
    variables: dict[str, str],
) -> None:  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    output = tmp_path / "out"
    where = ["--output-dir", str(output), "--folder-name", "run"]
    for command in (["distill", *cli_pair, *where], ["prepare-data", "--output-dir", str(output)], ["check-env"],
                    ["distill", *cli_pair, *where, "--dry-run"], ["validate"]):  # fmt: skip
        assert cli.main(command) == 2
        said = capfd.readouterr().err
        assert "error: distillkit runs in one process" in said
        assert all(name in said.splitlines()[-1] for name in variables)
    assert not output.exists()
    assert {name: os.environ[name] for name in variables} == variables
    # What computes nothing works under a launcher too.
    assert cli.main(["presets"]) == 0
    with pytest.raises(UsageError, match="runs in one process"):
        distill_models(output_dir=output)


def test_in_the_process_group_of_others(distil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(UsageError, match="process group in this process has 2"):
        distil()


# --- what lies in the run directory -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(distil: Any) -> Path:
    return distil().run_directory


@pytest.mark.parametrize("kind", ["student", "teacher", "texts", "through a link"])
def test_inputs_inside_the_run_directory_are_refused_before_anything_is_deleted(
    run: Path, pair: SimpleNamespace, small: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    own = run / "student" / "final"
    link = tmp_path / "link"
    link.symlink_to(own)
    texts = run / "texts.txt"
    texts.write_bytes(pair.texts.read_bytes())
    changes = {
        "student": {"student_model_path": own}, "teacher": {"teacher_model_path": own},
        "texts": {"dataset_path": texts}, "through a link": {"student_model_path": link},
    }[kind]  # fmt: skip
    given = {"teacher_model_path": pair.teacher, "student_model_path": pair.student, "dataset_path": pair.texts}
    before = listing(run)
    with pytest.raises(UsageError, match=r"lies in the run directory .*, whose files this run replaces"):
        distill_models(
            **{**small, **given, **changes}, output_dir=run.parent, folder_name=run.name, force=True, quiet=True
        )
    assert listing(run) == before
    texts.unlink()


def test_another_run_may_begin_with_this_ones_student(run: Path, distil: Any) -> None:
    again = distil(student_model_path=run / "student" / "final")
    assert again.run_directory != run
    assert again.student_path is not None


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(cli_env: Callable[..., dict[str, str]], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    if sys.platform == "win32":
        pytest.skip("needs a POSIX shell")

    def run(line: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["/bin/sh", "-c", line, sys.executable, *map(str, arguments)],
            env=cli_env(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", **variables), capture_output=True, check=False,
        )  # fmt: skip

    return run


def test_a_run_without_streams(shell: Any, cli_pair: list[str], tmp_path: Path) -> None:
    """Closed streams are nobody's: the run is done, and no file of it holds what was said."""
    where = ["--output-dir", tmp_path / "out", "--folder-name", "run"]
    done = shell('"$0" -m distillkit "$@" <&- >&- 2>&-', "distill", *cli_pair, *where)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    manifest = json.loads((tmp_path / "out/run/manifest.json").read_text(encoding="utf-8"))
    assert manifest["stages"]["distill"]["status"] == "complete"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["presets"], ["presets", "--json"]])
def test_full_standard_output(shell: Any, arguments: list[str]) -> None:
    done = shell('"$0" -m distillkit "$@" >/dev/full', *arguments)
    assert done.returncode == 1
    assert b"error: cannot write to standard output: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
    assert shell('"$0" -m distillkit "$@" 2>/dev/full', "validate", "--run", "absent").returncode == 2


def test_a_terminal_that_is_not_utf_8(shell: Any) -> None:
    variables = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = shell('"$0" -m distillkit "$@"', "params", "temperature", "--lang", "ru", "--json", **variables)
    assert done.returncode == 0
    assert done.stdout.isascii()
    shown = json.loads(done.stdout)["parameters"]["temperature"]
    assert "температур" in json.dumps(shown, ensure_ascii=False).lower()
    assert shell('"$0" -m distillkit params --lang ru', **variables).returncode == 0
