"""Dockerfile and devcontainer, as far as they can be checked without a container: what they copy, name and run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

tomllib = pytest.importorskip("tomllib", reason="came with Python 3.11")

ROOT = Path(__file__).resolve().parents[2]
PROJECT: Any = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    found: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            name = rest.split(" AS ")[1]
            found[name] = []
        found[name].append((instruction, rest))
    return found


def test_what_is_copied_is_all_that_the_package_is_built_from() -> None:
    copied = {name for instruction, rest in stages()["program"] if instruction == "COPY" for name in rest.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        "pyproject.toml",
        PROJECT["project"]["readme"],
        *PROJECT["project"]["license-files"],
        *wheel["packages"],
        *wheel["force-include"],
    }
    assert needed == copied


def test_extras_and_programs_that_are_named_exist() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    runs = [rest for stage in stages().values() for instruction, rest in stage if instruction == "RUN"]
    extras = re.findall(r"'\.\[(\w+)\]'", " ".join([*runs, container["postCreateCommand"]]))
    assert set(extras) == {"all", "test", "dev"}
    assert set(extras) <= set(PROJECT["project"]["optional-dependencies"])
    entries = [
        json.loads(rest) for stage in stages().values() for instruction, rest in stage if instruction == "ENTRYPOINT"
    ]
    assert entries == [["distillkit"], ["pytest"]]
    assert "distillkit" in PROJECT["project"]["scripts"]
    assert container["build"]["target"] in stages()
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    for command in runs:
        assert shlex.split(command)


def test_python_is_one_that_the_package_takes() -> None:
    version = re.search(r"python:(\d+)\.(\d+)", stages()["program"][0][1])
    least = re.search(r">=(\d+)\.(\d+)", PROJECT["project"]["requires-python"])
    assert version is not None
    assert least is not None
    assert tuple(map(int, version.groups())) >= tuple(map(int, least.groups()))
