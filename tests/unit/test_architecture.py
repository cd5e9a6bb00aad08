"""The layout that the package promises: which module may import which, computed from the source."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

import pytest

import distillkit
from distillkit.stages import STAGES

ROOT = Path(distillkit.__file__).resolve().parent
# A module does one job; what has grown beyond this has usually taken on a second one.
LONGEST_MODULE = 420
# Tables of words, not code.
DATA_TABLES = {f"distillkit.{table}.{lang}" for table in ("settings.help_texts", "words") for lang in ("en", "ru")}
# The floors of the house, lowest first. A folder, or a module that lies flat, imports from lower floors and from its own
# folder, never from another room of its floor or from above.
FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(floor.split())
    for floor in (
        "errors",
        "durability hub registry silence_libraries streams wording words",
        "terminal",
        "console interrupts locks process_environment process_state settings storage",
        "device installing servers",
        "processes",
        "alignment",
        "losses",
        "data",
        "models reports",
        "evaluation run",
        "teachers",
        "training",
        "exporting harness reporting tuning",
        "dry_run importing selftests chatting comparing",
        "stages",
        "pipeline",
        "cli",
        "api",
        "__init__ __main__ api_stub",
    )
)
HEAVY = {"torch", "transformers", "datasets", "matplotlib", "accelerate", "pyarrow", "numpy", "huggingface_hub"}


def module_name(path: Path) -> str:
    parts = ["distillkit", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def statements(tree: ast.Module, *, deferred: bool) -> list[ast.Import | ast.ImportFrom]:
    """The imports of a module: at import time, or with `deferred` also those inside functions; never for types alone."""
    found: list[ast.Import | ast.ImportFrom] = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import | ast.ImportFrom):
                found.append(child)
            elif deferred or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                visit(child)

    visit(tree)
    return found


def imported(name: str, source: str, known: frozenset[str], *, deferred: bool) -> set[str]:
    """Full names of what a module imports: `from distillkit import cli` is the module distillkit.cli.main."""
    names: set[str] = set()
    for statement in statements(ast.parse(source), deferred=deferred):
        if isinstance(statement, ast.Import):
            names.update(alias.name for alias in statement.names)
            continue
        base = importlib.util.resolve_name("." * statement.level + (statement.module or ""), name)
        parts = {f"{base}.{alias.name}" for alias in statement.names}
        found = {part for part in parts if part in known}
        names |= found
        if found != parts:
            names.add(base)
    return names


@cache
def imports(*, deferred: bool) -> dict[str, set[str]]:
    known = frozenset(modules())
    return {
        name: imported(name, path.read_text(encoding="utf-8"), known, deferred=deferred)
        for name, path in modules().items()
    }


def reached(name: str, *, deferred: bool) -> set[str]:
    """All top-level packages and own modules that importing `name` brings in; parents of a package come too."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        # What the package itself defers are the names that it offers to others.
        waiting += imports(deferred=deferred and module != "distillkit").get(module, set())
        if module in modules() and "." in module:
            waiting.append(module.rpartition(".")[0])
    return seen


def room(name: str) -> str:
    """`distillkit.data.files` -> `data`: the folder, or the module that lies flat."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_the_imports_are_read_rightly() -> None:
    source = (
        "from __future__ import annotations\nimport os.path\nfrom distillkit import pipeline, errors\n"
        "from distillkit.console import Console\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torch\ndef f():\n    import rich\n"
    )
    known = frozenset({"distillkit", "distillkit.pipeline", "distillkit.errors", "distillkit.console"})
    own = {"distillkit.pipeline", "distillkit.errors", "distillkit.console"}
    assert imported("distillkit.x", source, known, deferred=False) == {"__future__", "os.path", "typing"} | own
    assert "rich" in imported("distillkit.x", source, known, deferred=True)
    assert "torch" not in imported("distillkit.x", source, known, deferred=True)
    assert len(modules()) > 50


def test_every_room_stands_on_one_floor() -> None:
    standing = [name for floor in FLOORS for name in floor]
    assert sorted(standing) == sorted({room(name) for name in modules()})


@pytest.mark.parametrize("name", sorted(modules()))
def test_arrows_point_down(name: str) -> None:
    """Deferred imports count too: they change when a module is loaded, not who depends on whom."""
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    if name == "distillkit":
        return  # It offers names of upper floors, and is imported for the version alone.
    own = room(name)
    for other in imports(deferred=True)[name] & set(modules()) - {"distillkit"}:
        assert room(other) == own or floor_of[room(other)] < floor_of[own], other


def test_stages_never_import_one_another() -> None:
    stages = {f"distillkit.stages.{spec.module}" for spec in STAGES.values()}
    assert stages == {name for name in modules() if name.startswith("distillkit.stages.")}
    for name in stages:
        others = stages - {name}
        assert not reached(name, deferred=True) & others


def test_only_what_draws_imports_rich() -> None:
    users = {
        name for name, found in imports(deferred=True).items() if any(item.split(".")[0] == "rich" for item in found)
    }
    assert users == {"distillkit.terminal"}


@pytest.mark.parametrize(
    "name",
    ["errors", "settings.declared", "settings.resolve", "console", "cli.main", "cli.options", "api", "run.directory"],
)
def test_the_light_modules_are_light(name: str) -> None:
    brought = {item.split(".")[0] for item in reached(f"distillkit.{name}", deferred=False)}
    assert not brought & HEAVY


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("errors", set()),
        ("registry", {"errors"}),
        ("settings.facts", set()),
        (
            "settings.parameters",
            {
                "errors",
                "registry",
                "settings.conditions",
                "settings.core_parameters",
                "settings.facts",
                "settings.training_parameters",
                "settings.on_policy_parameters",
            },
        ),
    ],
)
def test_the_foundations_need_little_of_the_package(name: str, needs: set[str]) -> None:
    own = {item for item in reached(f"distillkit.{name}", deferred=True) if item.startswith("distillkit.")}
    assert own <= {f"distillkit.{item}" for item in (name, name.rpartition(".")[0], *needs)}


@pytest.mark.parametrize("deferred", [False, True], ids=["when imported", "anywhere"])
def test_no_import_cycles(deferred: bool) -> None:
    # Not counted: the package itself, of which modules need the version alone, and the tables of words, which
    # `help_texts` opens by language.
    ignored = {"distillkit", *(DATA_TABLES if deferred else ())}
    graph = {
        name: {item for item in found if item in modules() and item not in ignored}
        for name, found in imports(deferred=deferred).items()
        if name not in ("distillkit", "distillkit.__main__")
    }
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        for other in sorted(graph.get(name, set())):
            walk(other, (*path, name))
        done.add(name)

    for name in graph:
        walk(name, ())


@pytest.mark.parametrize("name", sorted(set(modules()) - DATA_TABLES))
def test_modules_are_short(name: str) -> None:
    assert len(modules()[name].read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


def test_every_module_says_what_it_is_for() -> None:
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        assert not text or ast.get_docstring(ast.parse(text)), name
