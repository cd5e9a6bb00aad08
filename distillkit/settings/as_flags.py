"""A configuration as the command line that gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit.settings import declared


def as_flags(config: Mapping[str, Any]) -> list[str] | None:
    """The options that turn the defaults into `config`; None where a value has no option, so that only a file can say it.

    Where a run lies is left out.

    Args:
        config: parameter to value, a whole configuration.
    """
    replaced = {name for name, winner in declared.replacements().items() if config.get(winner) is not None}
    left_out = {*declared.location_names(), *replaced}
    words: list[str] = []
    for name in declared.fields():
        value = config.get(name, declared.default(name))
        if name in left_out or value == declared.default(name):
            continue
        if value is None or not declared.facts(name).on_command_line:
            return None
        if isinstance(value, bool):
            words.append(declared.flags(name)[0 if value else 1])
        else:
            words += [declared.flag(name), repr(value) if isinstance(value, float) else str(value)]
    return words
