"""The commands in the fenced shell blocks of the README and docs/, and what a page says of running them.

A line directly above a block may say that a test cannot run it, or some of its subcommands, and why:

    <!-- not run: hub -->
    <!-- not run: hub: prepare-data, push; minutes: tune -->

Blocks with `<!-- example: … -->` or `<!-- test command -->` above them are run by tests of their own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Why a command is not run.
REASONS = {
    "hub",
    "gpu",
    "minutes",
    "container",
    "cluster",
    "llama.cpp",
    "ollama",
    "chat model",
    "shell",
    "several runs",
}
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?:sh|shell|bash|console)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)
_PROGRAM = re.compile(r"(?:.*/)?distillkit")
# What a shell would take apart. Not `;`, which is the value of an option too.
_BETWEEN = {"&&", "||", "|", ">"}


@dataclass(frozen=True)
class Documented:
    """One command of distillkit as a page has it.

    Attributes:
        page: relative to the repository.
        arguments: of distillkit.
        reason: why no test runs it; None where one does.
        elsewhere: a test of its own runs the block.
    """

    page: str
    arguments: tuple[str, ...]
    reason: str | None
    elsewhere: bool

    def __str__(self) -> str:
        return f"{self.page}: distillkit {shlex.join(self.arguments)}"


def pages() -> list[Path]:
    """The README, in each language, and all of docs/."""
    return sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")])


def documented() -> list[Documented]:
    """All commands of distillkit in all pages."""
    return [command for page in pages() for command in _of_page(page)]


def _of_page(page: Path) -> Iterator[Documented]:
    name = page.relative_to(ROOT).as_posix()
    for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        mark = block["mark"] or ""
        reasons = _reasons(mark.removeprefix("not run: "), name) if mark.startswith("not run: ") else {}
        elsewhere = mark.startswith(("example: ", "test command"))
        for line in block["text"].replace("\\\n", " ").splitlines():
            for arguments in calls(line):
                reason = reasons.get(arguments[0] if arguments else "", reasons.get("*"))
                yield Documented(name, arguments, reason, elsewhere)


def _reasons(mark: str, page: str) -> Mapping[str, str]:
    """Subcommand to reason; `*` stands for all others."""
    found: dict[str, str] = {}
    for part in mark.split("; "):
        reason, colon, names = part.partition(": ")
        assert reason in REASONS, f"{page}: {reason!r} is none of {sorted(REASONS)}"
        found.update(dict.fromkeys(names.split(", ") if colon else ["*"], reason))
    return found


def calls(line: str) -> Iterator[tuple[str, ...]]:
    """The arguments of each distillkit in a line: also behind `python -m`, a launcher, or other commands."""
    lexer = shlex.shlex(line, posix=False)  # Which leaves quotation marks, so that '|' is told from |.
    lexer.whitespace_split = True
    words = list(lexer)
    begin = None
    for index, word in enumerate([*words, "&&"]):
        starts = (index == 0 or words[index - 1] in {*_BETWEEN, "-m", "uvx"}) or (
            index > 1 and words[index - 2] == "--from"
        )
        if begin is not None and word in _BETWEEN:
            yield tuple(shlex.split(" ".join(words[begin:index])))
            begin = None
        elif begin is None and index < len(words) and starts and _PROGRAM.fullmatch(word):
            begin = index + 1
