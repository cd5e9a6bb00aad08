"""The documents say what is there: the README's map of the source, and every link and file that a page names."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# The tests may run against an installed wheel; the documents describe the source beside them.
PACKAGE = ROOT / "distillkit"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "distillkit/**/*.md")
    for path in ROOT.glob(pattern)
)
MODULE = re.compile(r"`([\w/]+\.py)`")
NAMED_FILE = re.compile(r"\b(?:tests|docs|benchmarks)/[\w/]+\.(?:py|md)\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def architecture() -> ModuleType:
    """The module beside this one that holds the order of the floors."""
    spec = importlib.util.spec_from_file_location("floors", Path(__file__).with_name("test_architecture.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def map_lines() -> list[str]:
    """The lines of the README's map that describe the package."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## The source")[1]
    lines = text.split("```")[1].split("distillkit/\n", 1)[1].split("\n\n")[0].splitlines()
    assert lines
    return lines


def mapped_modules() -> Iterator[str]:
    """Paths below the package: a name at the edge is a module or a folder, an indented line holds a folder's modules."""
    folder = ""
    for line in map_lines():
        if line.startswith(" "):
            yield from (f"{folder}{name}.py" for name in line.split())
        elif (name := line.split()[0]).endswith("/"):
            folder = name
        else:
            yield name


def test_the_map_names_every_module_once_and_no_other() -> None:
    named = sorted(mapped_modules())
    there = sorted(
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py" or path.parent == PACKAGE
    )
    assert {"not in the map": sorted({*there} - {*named}), "not in the package": sorted({*named} - {*there})} == {
        "not in the map": [],
        "not in the package": [],
    }
    assert named == there  # None twice.


def test_the_map_is_in_the_order_of_the_floors() -> None:
    floor_of = {room: number for number, floor in enumerate(architecture().FLOORS) for room in floor}
    rooms = [line.split()[0].removesuffix("/").removesuffix(".py") for line in map_lines() if not line.startswith(" ")]
    floors = [floor_of[room] for room in rooms]
    assert floors == sorted(floors)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), target
        if anchor:
            assert anchor in headings(place), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_that_a_page_names_exist(page: Path) -> None:
    for name in MODULE.findall(page.read_text(encoding="utf-8")):
        assert any((folder / name).is_file() for folder in (ROOT, PACKAGE, page.parent)), name


def test_files_of_tests_and_pages_that_the_source_names_exist() -> None:
    gone = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *PAGES)
        for name in NAMED_FILE.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / name).is_file()
    ]
    assert not gone


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them of its headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_commit_hooks_run_what_the_checks_run() -> None:
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace('"$environment/bin/', "").replace('"', "")
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert hooks
    for hook in hooks:
        assert re.search(rf"^{re.escape(hook['entry'])}( |$)", checks, flags=re.MULTILINE), hook["entry"]
