"""The script and the jobs of docs/ci: what the jobs run is run here, on tiny models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from json_objects import problems
from settings_file import settings_file
from shell_programs import forked_program

from distillkit.settings.resolve import resolve

CI = Path(__file__).resolve().parents[2] / "docs" / "ci"


def job(name: str) -> Any:
    """The only job of an example."""
    read = yaml.safe_load((CI / name).read_text(encoding="utf-8"))
    return read["jobs"]["distil"] if "jobs" in read else read["distil"]


def github_steps() -> list[str]:
    return [step["run"] for step in job("github.yml")["steps"] if "run" in step]


def gitlab_steps() -> list[str]:
    return [*job("gitlab.yml")["before_script"], *job("gitlab.yml")["script"]]


def put_on_path(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n" + text, encoding="utf-8")
    (folder / name).chmod(0o755)


def bash(
    lines: Iterable[str], cwd: Path, environment: dict[str, str], programs: Path
) -> subprocess.CompletedProcess[str]:
    """Run the lines as CI does, each of which may end it."""
    environment = {**environment, "PATH": f"{programs}{os.pathsep}{environment['PATH']}"}
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(lines)],
        cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=300, check=False,
    )  # fmt: skip


def test_what_the_jobs_run(
    tmp_path: Path, pair: SimpleNamespace, small: dict[str, Any], cli_env: Callable[..., dict[str, str]]
) -> None:
    measured = small | {"skip_validation": False, "learning_rate": 3e-2}
    settings_file(
        tmp_path, teacher_model_path=pair.teacher, student_model_path=pair.student, dataset_path=pair.texts, **measured
    ).rename(tmp_path / "distil.yaml")
    (tmp_path / "distil.sh").write_bytes((CI / "distil.sh").read_bytes())
    programs = tmp_path / "programs"
    put_on_path(programs, "python3", f'exec "{sys.executable}" "$@"\n')
    put_on_path(programs, "pip", 'echo "$@" > installed\n')
    summary = tmp_path / "page.md"
    environment = cli_env(
        GITHUB_STEP_SUMMARY=str(summary), GITHUB_ACTIONS="true", DISTILLKIT="./distillkit", HF_HUB_OFFLINE="1"
    )

    with forked_program(programs / "distillkit", ["-m", "distillkit"]):
        done = bash(github_steps(), tmp_path, environment, programs)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert problems(told, "distill") == []
    assert told["result"]["verdict"] == "improved"
    assert summary.read_text(encoding="utf-8").startswith("**improved**\n\n| | bits per byte |")
    assert "::group::" in done.stderr
    uploaded = next(step["with"]["path"] for step in job("github.yml")["steps"] if "artifact" in step.get("uses", ""))
    assert all((tmp_path / path).is_file() for path in uploaded.split())
    assert (tmp_path / "installed").read_text(encoding="utf-8") == "install ./distillkit[gguf]\n"

    # The other job runs the very same commands, in the same order, and keeps the same files.
    assert gitlab_steps() == [step for step in github_steps() if "GITHUB_" not in step]
    assert all((tmp_path / path).is_file() for path in job("gitlab.yml")["artifacts"]["paths"])


def test_the_settings_of_the_page_are_valid(tmp_path: Path) -> None:
    page = (CI.parent / "ci.md").read_text(encoding="utf-8")
    (tmp_path / "distil.yaml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    parameters = resolve({}, explicit_label="flag", config_file=tmp_path / "distil.yaml", environment={}).parameters
    assert parameters.dataset_path == "texts"


FAILED = {"status": "failed", "error": "the disk is full", "hint": None, "exit_code": 1, "run": None, "continue": None}
WORSE = {
    "status": "quality gate failed",
    "result": {"verdict": "worse", "before": {"bits_per_byte": 1.0}, "control": None, "after": {"bits_per_byte": 1.5},
        "teacher": None, "next_steps": ["a lower --learning-rate"]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("codes", "told", "calls", "ends", "says"),
    [
        ((1, 0), WORSE, 2, 0, "| after | 1.5000 |"),
        ((1, 1), FAILED, 2, 1, "**the disk is full**"),
        ((4,), WORSE, 1, 4, "- a lower --learning-rate"),
        ((2,), FAILED, 1, 2, "**the disk is full**"),
        ((143,), FAILED, 1, 143, "**the disk is full**"),
    ],
)
def test_exit_codes_of_the_script(
    tmp_path: Path, codes: tuple[int, ...], told: dict[str, Any], calls: int, ends: int, says: str
) -> None:
    """A distillkit that ends with these codes, one after another."""
    (tmp_path / "told").write_text(json.dumps(told), encoding="utf-8")
    (tmp_path / "codes").write_text("\n".join(map(str, codes)) + "\n", encoding="utf-8")
    number = 'echo >> calls; code=$(sed -n "$(wc -l < calls)p" codes); cat told; exit "$code"\n'
    put_on_path(tmp_path / "programs", "distillkit", number)
    put_on_path(tmp_path / "programs", "python3", f'exec "{sys.executable}" -I -S "$@"\n')
    done = bash([f"sh '{CI / 'distil.sh'}' distil.yaml ci"], tmp_path, dict(os.environ), tmp_path / "programs")
    assert done.returncode == ends, done.stderr
    assert len((tmp_path / "calls").read_text(encoding="utf-8").splitlines()) == calls
    assert says in (tmp_path / "summary.md").read_text(encoding="utf-8")
