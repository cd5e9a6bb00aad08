"""What other installed packages add to the choices, and which of it a configuration uses."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING

from distillkit import registry
from distillkit.registry import Added, AutoOr, Table
from distillkit.settings import declared

if TYPE_CHECKING:
    from distillkit.settings.parameters import Parameters

TABLES: Mapping[str, Table] = {
    "divergence": registry.DIVERGENCES,
    "alignment": registry.ALIGNMENTS,
    "teacher_cache": registry.TEACHER_SOURCES,
    "data format": registry.DATA_FORMATS,
}
"""The tables that other packages may add to, under the parameter that chooses or what they hold."""


def listed_extensions() -> list[str]:
    """`divergence hellinger (pkg 1.0)` for everything that is added."""
    return [f"{kind} {name} ({added.package})" for kind, table in TABLES.items() for name, added in table.added.items()]


def conflicts() -> list[str]:
    """What installed packages want to add and cannot, and why."""
    return [words for table in TABLES.values() for words in table.conflicts]


def raised_in(error: BaseException) -> str | None:
    """The package, "pkg 1.0", in whose code an error was raised, or from which a library was called that raised it; None if it
    was in distillkit's own.
    """
    modules = {
        added.path.partition(":")[0].partition(".")[0]: added.package
        for table in TABLES.values()
        for added in table.added.values()
    }
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if top == "distillkit" or top in modules:
            found = modules.get(top)
    return found


def load_chosen(config: Parameters) -> dict[str, str]:
    """Load the code of other packages that a configuration names, and of every data format that they add: a file of any
    suffix may be met. The versions of their packages, by name.

    Raises:
        PreconditionError: it cannot be loaded.
    """
    used: list[Added] = []
    for name in declared.fields():
        table = declared.facts(name).choices
        table = table.table if isinstance(table, AutoOr) else table
        value = getattr(config, name)
        if isinstance(table, Table) and value in table.added:
            registry.resolve(table, value)
            used.append(table.added[value])
    for suffix, added in registry.DATA_FORMATS.added.items():
        registry.resolve(registry.DATA_FORMATS, suffix)
        used.append(added)
    return dict(added.package.rsplit(" ", 1) for added in used)
