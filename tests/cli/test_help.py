"""The help: headings from the declaration, advanced options folded away, readable on every terminal, and at once."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from distillkit.cli.main import main
from distillkit.settings import declared
from distillkit.settings.help_texts import group_title

Shown = Callable[..., str]


class Stream(io.TextIOWrapper):
    """Standard output that says what it is."""

    def __init__(self, encoding: str, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What a command writes, on a stream and a terminal of this kind."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, terminal: bool = False, encoding: str = "utf-8", width: int = 80, **variables: str) -> str:
        stream = Stream(encoding, terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm-256color")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert main(arguments) == 0
        return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]

    return run


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_parameters_stand_under_their_headings(shown: Shown) -> None:
    """`--help-all` lists every option of `distill` once, below the title of its group or topic."""
    text = shown("distill", "--help-all", width=100)
    parts = dict(re.findall(r"^(\S[^\n]*):\n((?:  .*\n)+)", text, re.MULTILINE))
    for heading, names in declared.sections().items():
        flags = [f"--{name.replace('_', '-')}" for name in names if declared.facts(name).on_command_line]
        if flags:
            listed = re.findall(r"^  (--\S+)", parts[group_title(heading)].replace("--[no-]", "--"), re.MULTILINE)
            assert [flag.split("/")[0] for flag in listed] == flags
    assert {"Run", "This program"} < set(parts)


def test_the_advanced_ones_are_folded_away(shown: Shown) -> None:
    short, long = shown("distill", "--help"), shown("distill", "--help-all")
    advanced = [name for name in declared.names_with_flag() if declared.is_advanced(name)]
    assert f"{len(advanced)} more options for advanced use: distillkit distill --help-all" in short
    assert "more options" not in long
    for name in declared.names_with_flag():
        pattern = rf"^  --(\[no-\])?{declared.flag(name)[2:]}[ /\n]"
        assert bool(re.search(pattern, short, re.MULTILINE)) == (not declared.is_advanced(name)), name
        assert re.search(pattern, long, re.MULTILINE), name


def test_a_command_without_advanced_options_has_no_longer_help(shown: Shown) -> None:
    assert "--help-all" not in shown("plot", "--help")
    assert "\n1 more option for advanced use" in shown("demo", "--help")
    assert "--help-all" in shown("prepare-data", "--help")
    assert "--epochs" not in shown("prepare-data", "--help-all"), "only later stages read it"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("terminal", [True, False])
def test_the_help_fits(shown: Shown, width: int, terminal: bool) -> None:
    for command in (["--help"], ["distill", "--help-all"], ["cache", "--help"], ["push", "-h"]):
        lines = without_styles(shown(*command, width=width, terminal=terminal)).splitlines()
        assert [line for line in lines if len(line) > width and " " in line.strip()] == []
        assert all(line == line.rstrip() for line in lines)
        assert not any("\u00a0" in line for line in lines)


def test_panels_on_a_terminal(shown: Shown) -> None:
    text = shown("distill", "--help", terminal=True)
    assert "\x1b[36m--teacher-model TEXT" in text
    assert re.search(r"^╭─ Models ─+╮$", without_styles(text), re.MULTILINE)
    plain = shown("distill", "--help")
    unframed = re.sub(r"[╭╮╰╯│─]", "", without_styles(text))
    assert plain.replace(":", "").split() == unframed.replace(":", "").split()


@pytest.mark.parametrize(
    "kind",
    [{"terminal": False}, {"terminal": True, "NO_COLOR": "1"}, {"terminal": True, "TERM": "dumb"},
     {"terminal": True, "encoding": "cp1252"}, {"terminal": True, "encoding": "ascii"},
     {"terminal": False, "FORCE_COLOR": "1", "GITHUB_ACTIONS": "true"}],
)  # fmt: skip
def test_plain_headings_elsewhere(shown: Shown, kind: dict[str, str]) -> None:
    text = shown("distill", "--help", **kind)
    assert "\nModels:\n  --teacher-model TEXT" in text
    assert "\x1b" not in text
    assert "─" not in text
    assert "\\u" not in text, "every sign has a plain one"


def test_help_loads_little() -> None:
    """Help comes at once because what it does not need is not loaded: neither what draws nor what checks values."""
    heavy = {
        "rich",
        "pydantic",
        "torch",
        "transformers",
        "numpy",
        "yaml",
        "huggingface_hub",
        "importlib.metadata",
        "email",
    }
    heavy |= {"distillkit.terminal", "distillkit.cli.commands", "distillkit.pipeline", "distillkit.settings.resolve"}
    program = (
        "import sys\nfrom distillkit.cli.main import main\n"
        "assert main(['--help']) == main(['distill', '--help']) == main(['distill', '--help-all']) == 0\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
