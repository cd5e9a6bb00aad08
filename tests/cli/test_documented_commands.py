"""Every command of distillkit in the README and docs/: it parses with its values, and is run on a tiny run if no page says why not."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from documented_commands import Documented, calls, documented

from distillkit.cli.app import app
from distillkit.settings import declared
from distillkit.settings.resolve import resolve

COMMANDS = documented()
# Each of their examples is run by tests/cli/test_parameter_effects.py as one parameter of a whole run.
REFERENCE = ("docs/parameters.md", "docs/parameters.ru.md")


@functools.cache
def program() -> Any:
    """The command line, built once."""
    return typer.main.get_command(app)


def check(command: Documented) -> None:
    """Parse the command as the command line does, and resolve its parameters as a run does: names, types, ranges, presets.

    Raises:
        Exception: what a user would be told.
    """
    group = program()
    arguments = list(command.arguments)
    if not arguments or arguments[0].startswith("-"):
        assert arguments in (["--install-completion"], ["--version"], ["--help"]), command
        return
    if arguments[0] == "launch":
        assert "--" in arguments, command
        with group.commands["launch"].make_context("launch", arguments[1:]):
            arguments = arguments[arguments.index("--") + 1 :]
    name = arguments[0]
    assert name in group.commands, f"{command}: no such command"
    with group.commands[name].make_context(name, arguments[1:]) as context:
        given = {
            item: value for item, value in context.params.items() if item in declared.fields() and value is not None
        }
        if "config_file" in context.params:  # A file of the reader's is none of ours; the rest is resolved.
            resolve(given, explicit_label="flag", preset=context.params["preset"], environment={})


@pytest.mark.parametrize("page", sorted({command.page for command in COMMANDS}))
def test_commands_parse(page: str) -> None:
    for command in COMMANDS:
        # The examples of extending.md use what the page itself adds to the package.
        if command.page == page and not command.elsewhere:
            try:
                check(command)
            except Exception as error:
                pytest.fail(f"{command}\n{error}")


def test_what_is_found_in_the_pages() -> None:
    assert len(COMMANDS) > 150
    assert list(calls("python3 -m venv .venv && .venv/bin/distillkit distill --epochs 2  # twice")) == [
        ("distill", "--epochs", "2")
    ]
    assert list(calls("srun torchrun --nnodes 2 -m distillkit validate | distillkit chat --json > file")) == [
        ("validate",),
        ("chat", "--json"),
    ]
    assert list(calls("distillkit distill --csv-delimiter '|' --folder-name 'a b'")) == [
        ("distill", "--csv-delimiter", "|", "--folder-name", "a b")
    ]
    assert list(calls("uvx --from . distillkit runs && cd distillkit")) == [("runs",)]


@pytest.mark.parametrize(
    "wrong",
    ["distil", "distill --epoch 3", "distill --epochs many", "distill --alpha 2", "distill --preset fast", "params one two",
     "launch --processes 2 -- validat", "validate --temperature 3"],
)  # fmt: skip
def test_a_command_that_is_wrong_is_found(wrong: str) -> None:
    with pytest.raises(Exception):  # noqa: B017 - Typer's, ours or an assertion, whichever sees it first.
        check(Documented("page", tuple(wrong.split()), None, False))


def test_commands_that_no_page_excuses_run(
    distil: Any, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On output/mine, a tiny run. Their order is that of the pages, so what comes later finds what is there already."""
    run = distil(output_dir=tmp_path / "output", folder_name="mine", skip_validation=False, learning_rate=3e-2)
    assert run.verdict == "improved"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", lambda address: True)
    ran = set()
    for documented_command in COMMANDS:
        arguments = documented_command.arguments
        excused = documented_command.reason or documented_command.elsewhere or documented_command.page in REFERENCE
        if excused or arguments in ran:
            continue
        monkeypatch.setattr("sys.stdin", io.StringIO())  # Nobody asks `chat` anything.
        done = command(*arguments, code=None)
        assert done.code == 0, f"{documented_command}\n{done.out}\n{done.err}"
        ran.add(arguments)
    assert {"distill", "control", "validate", "demo", "plot", "report", "export", "runs", "schema", "cache"} <= {
        arguments[0] for arguments in ran
    }
