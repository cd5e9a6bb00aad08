"""A new stage is one module and its registration: nothing else is edited, and the whole program knows it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import warm_python

import distillkit

MODULE = '''
"""count: how many words the held-out texts have."""

from distillkit.data.examples import load_examples
from distillkit.stages import StageResult
from distillkit.storage import write_json


def run(config, run, console, *, from_scratch=False, least=("1",)):
    words = [word for example in load_examples(run.data / "test") for word in example["text"].split()]
    counted = [word for word in words if len(word) >= int(least[0])]
    write_json(run.path / "count.json", {"words": len(counted)})
    return StageResult([run.path / "count.json"], {"words": len(counted)}, f"{len(counted)} words")
'''
REGISTRATION = """    "count": StageSpec(
        "count", "Count the words of the held-out texts.", after=("prepare-data",), cheap=True,
        options=(StageOption("least", "--least", "shortest word that counts", list[str], "every word"),),
    ),
"""


@pytest.fixture
def program(tmp_path: Path, cli_env: Callable[..., dict[str, str]]) -> Callable[..., str]:
    """`program("count", "--run", …)` -> stdout of a distillkit that has one stage more."""
    source = Path(distillkit.__file__).resolve().parent
    package = Path(shutil.copytree(source, tmp_path / "changed" / "distillkit"))
    (package / "stages" / "count.py").write_text(MODULE, encoding="utf-8")
    registry = package / "stages" / "__init__.py"
    text = registry.read_text(encoding="utf-8")
    assert text.count('    "validate": StageSpec(') == 1
    registry.write_text(
        text.replace('    "validate": StageSpec(', REGISTRATION + '    "validate": StageSpec('), "utf-8"
    )
    environment = cli_env(PYTHONPATH=str(package.parent), HF_HUB_OFFLINE="1")

    def run(*arguments: object) -> str:
        done = warm_python.run(
            [sys.executable, "-m", "distillkit", *map(str, arguments)],
            env=environment, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_module_and_a_line_make_a_stage(program: Callable[..., str], pair_file: Path, tmp_path: Path) -> None:
    assert re.search(r"^\W*count +Count the words of the held-out texts\.", program("--help"), re.MULTILINE)
    assert "--least" in program("count", "--help")
    new = ["distill", "--config", pair_file, "--output-dir", tmp_path / "out", "--folder-name", "run", "--json"]
    assert json.loads(program(*new, "--dry-run"))["stages"]["count"] == "run"
    stages = json.loads(program(*new))["stages"]
    assert list(stages) == ["check-env", "prepare-data", "distill", "count"]
    assert stages["count"]["words"] == json.loads((tmp_path / "out" / "run" / "count.json").read_text())["words"] > 0
    again = ["count", "--run", tmp_path / "out" / "run", "--json"]
    assert json.loads(program(*again))["stages"]["count"]["state"] == "skipped"
    long = json.loads(program(*again, "--least", "6"))["stages"]["count"]
    assert long["state"] == "complete"
    assert 0 < long["words"] < stages["count"]["words"]
