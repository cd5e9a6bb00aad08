"""`distillkit schema`, and the objects of --json against it. conftest.py checks the objects of all other tests here too."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import typer.main
from json_objects import problems, validator
from jsonschema import Draft202012Validator

from distillkit.cli.app import app
from distillkit.cli.json_schemas import read_schema, schema_names


def commands_with_json() -> list[str]:
    """Every subcommand that has --json."""
    group: Any = typer.main.get_command(app)
    return [name for name, made in group.commands.items() if any("--json" in option.opts for option in made.params)]


def test_every_command_with_json_has_a_schema_that_takes_errors_too() -> None:
    names = commands_with_json()
    assert "distill" in names
    for name in names:
        assert {"$ref": "#/$defs/error"} in read_schema(name)["anyOf"], name


@pytest.mark.parametrize("name", schema_names())
def test_a_schema_is_in_one_piece_and_is_what_the_command_prints(name: str, command: Callable[..., Any]) -> None:
    schema = command("schema", name).json
    Draft202012Validator.check_schema(schema)
    assert schema == read_schema(name)
    text = json.dumps(schema)
    assert text.count('"$ref": "') == text.count('"$ref": "#/$defs/')


def test_the_list_of_schemas_and_a_name_that_there_is_not(command: Callable[..., Any]) -> None:
    listed = command("schema").out
    assert all(f"\n{name} " in listed for name in schema_names())
    assert "distillkit schema" in command("schema", "nothing", code=2).err


def test_the_objects_of_one_run(cli_pair: list[str], command: Callable[..., Any], tmp_path: Any) -> None:
    options = [option for option in cli_pair if option not in ("--skip-validation", "--no-control")]
    run = ["--output-dir", tmp_path, "--folder-name", "run"]
    seen: dict[str, dict[str, Any]] = {}

    def printed(*arguments: object, code: int = 0) -> dict[str, Any]:
        value = command(*arguments, "--json", code=code).json
        assert problems(value, str(arguments[0]) if value.get("status") != "failed" else "error") == []
        # Of the open schema, as users get it, a field more is no mistake.
        Draft202012Validator(read_schema(str(arguments[0]))).validate({**value, "of a later version": 1})
        return value

    printed("distill", *options, *run, "--dry-run")
    seen["distill"] = printed("distill", *options, *run, "--control")
    for stage in ("validate", "plot", "control"):
        seen[stage] = printed(stage, "--output-dir", tmp_path)
    printed("runs", "--output-dir", tmp_path)
    printed("cache", "--output-dir", tmp_path)
    printed("report", "--output-dir", tmp_path)
    printed("export", "--output-dir", tmp_path, "--format", "safetensors")
    printed("params")
    printed("params", "alpha")
    printed("presets")
    printed("presets", "show", "quality")
    assert printed("validate", "--run", tmp_path / "nowhere", code=2)["exit_code"] == 2
    assert printed("distill", "--epochs", "many", code=2)["exit_code"] == 2

    # Each kind of disagreement is found.
    gone, new, other = (copy.deepcopy(seen["distill"]) for _ in range(3))
    del gone["result"]["verdict"]
    new["result"]["after"]["loss"] = 1.0
    other["stages"]["distill"]["train"]["steps"] = "4"
    assert "'verdict' is a required property" in problems(gone)[0]
    assert "('loss' was unexpected)" in problems(new)[0]
    assert problems(other) == ["$.stages.distill.train.steps: '4' is not of type 'integer'"]


def test_a_stage_of_a_plugin_may_have_figures_of_its_own() -> None:
    stages = {"my-stage": {"state": "complete", "seconds": 1.0, "mine": 3}}
    assert Draft202012Validator(read_schema("stages")).is_valid(stages)
    assert not validator("stages").is_valid({"my-stage": {"state": "half", "seconds": 1.0}})
