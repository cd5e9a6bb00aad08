"""docs/extending.md, tried: each of its examples is applied to a copy of the package, as printed, and its command is run.

A marker stands before every block that is used:

    <!-- example: NAME file=PATH -->              a new file of the package
    <!-- example: NAME table=TABLE in=PATH -->    a line at the end of a table
    <!-- example: NAME input=FILE -->             a file that the command reads
    <!-- example: NAME command -->                command lines; the test adds a tiny pair of models to `distill`

Without the example the last of these commands is refused as wrong usage: it is the example that makes it work.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

import distillkit

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
MARKED_BLOCK = re.compile(r"^<!-- example: (\S+) (.+?) -->\n```\w*\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
Cli = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Block:
    """A marked block of the page.

    Attributes:
        facts: what the marker says: {"file": PATH}, {"table": TABLE, "in": PATH}, {"input": FILE} or {"command": ""}.
        text: what is printed.
    """

    facts: dict[str, str]
    text: str


def examples() -> dict[str, list[Block]]:
    """The marked blocks of the page by the name of their example."""
    blocks: dict[str, list[Block]] = defaultdict(list)
    for name, marker, text in MARKED_BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        facts = dict(fact.partition("=")[::2] for fact in marker.split())
        blocks[name].append(Block(facts, text))
    return dict(blocks)


EXAMPLES = examples()


def apply(block: Block, source: Path, folder: Path) -> None:
    """Add what a block prints to the copy of the package in `source`, or to `folder`, where the command runs."""
    if "file" in block.facts:
        place = source / block.facts["file"]
        assert not place.exists(), "an example adds a file and replaces none"
        place.write_text(block.text, encoding="utf-8")
    elif "input" in block.facts:
        (folder / block.facts["input"]).write_text(block.text, encoding="utf-8")
    elif "table" in block.facts:
        assert block.text.count("\n") == 1, "a registration is one line"
        place = source / block.facts["in"]
        content = place.read_text(encoding="utf-8")
        begin = re.search(rf"^{block.facts['table']}\b[^{{]*\{{$", content, flags=re.MULTILINE)
        assert begin is not None, f"{block.facts['in']} has no table {block.facts['table']}"
        closing = re.compile(r"^ *\}", flags=re.MULTILINE).search(content, begin.end())
        assert closing is not None
        end = closing.start()
        place.write_text(content[:end] + block.text + content[end:], encoding="utf-8")
    else:
        assert "command" in block.facts, block.facts


def commands(blocks: list[Block]) -> list[list[str]]:
    """The arguments of the command lines of an example, `distillkit` left out."""
    lines = [line for block in blocks if "command" in block.facts for line in block.text.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    assert words
    assert all(line[0] == "distillkit" for line in words)
    return [line[1:] for line in words]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a copy of the package and of its presets."""
    package = Path(distillkit.__file__).resolve().parent
    shutil.copytree(package, tmp_path / "source" / "distillkit", ignore=shutil.ignore_patterns("__pycache__"))
    if (package.parent / "presets").is_dir():
        shutil.copytree(package.parent / "presets", tmp_path / "source" / "presets")
    return tmp_path / "source"


def test_the_page_has_examples() -> None:
    assert set(EXAMPLES) == {"divergence", "data-format", "alignment", "teacher-source", "stage"}
    marked = PAGE.read_text(encoding="utf-8").count("<!-- example:")
    assert sum(map(len, EXAMPLES.values())) == marked, "a marker without a block behind it"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_works_as_printed(
    name: str,
    source: Path,
    tmp_path: Path,
    run_cli: Cli,
    cli_env: Callable[..., dict[str, str]],
    cli_pair: list[str],
    pair: SimpleNamespace,
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    environment = cli_env(PYTHONPATH=str(source), HF_HUB_OFFLINE="1")
    blocks = EXAMPLES[name]
    for block in blocks:
        if "input" in block.facts:
            apply(block, source, folder)

    def run(arguments: list[str], code: int) -> None:
        own = {word for word in arguments if word.startswith("--")}
        options = _without(cli_pair, own) if arguments[0] == "distill" else []
        if name == "alignment":
            options = [*_without(options, {"--student-model-path"}), "--student-model-path", str(pair.foreign_student)]
        run_cli(*arguments, *options, env=environment, cwd=folder, check=code)

    *_, last = commands(blocks)
    run(last, 2)
    assert not (folder / "output").exists()

    for block in blocks:
        if "input" not in block.facts:
            apply(block, source, folder)
    for arguments in commands(blocks):
        run(arguments, 0)
    (made,) = (folder / "output").glob("*/manifest.json")
    stages = json.loads(made.read_text(encoding="utf-8"))["stages"]
    assert {stage["status"] for stage in stages.values()} == {"complete"}
    assert (made.parent / "student" / "final" / "model.safetensors").is_file()


def _without(options: list[str], flags: set[str]) -> list[str]:
    """Options without some flags and their values."""
    kept, skipped = [], False
    for word in options:
        skipped = word in flags or (skipped and not word.startswith("--"))
        if not skipped:
            kept.append(word)
    return kept
