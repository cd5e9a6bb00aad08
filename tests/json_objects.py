"""Whether what `--json` prints is what its schema says, and says nothing more."""

from __future__ import annotations

import functools
from typing import Any

from jsonschema import Draft202012Validator

from distillkit.cli.json_schemas import read_schema

# Of the objects that do not name their command.
_BY_KEY = {"parameters": "params", "presets": "presets", "preset": "presets", "runs": "runs", "caches": "cache",
    "deleted": "cache", "question": "chat", "run": "runs", "removed": "runs"}  # fmt: skip


def schema_name(value: dict[str, Any]) -> str:
    """The schema that an object has to fit."""
    command = value.get("command")
    if command is not None:
        return "plan" if command == "dry-run" else command
    if value.get("status") == "failed":
        return "error"
    return next(name for key, name in _BY_KEY.items() if key in value)


def closed(schema: Any) -> Any:
    """The same, refusing what it does not name: a field without a description in the schema is found."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **changed} if isinstance(schema.get("properties"), dict) else changed


@functools.cache
def validator(name: str) -> Draft202012Validator:
    """The closed schema, ready to use."""
    return Draft202012Validator(closed(read_schema(name)))


def problems(value: dict[str, Any], name: str | None = None) -> list[str]:
    """Where an object and its schema (that of its command, where none is named) disagree; [] is as it should be."""
    found = list(validator(name or schema_name(value)).iter_errors(value))
    while any(error.context for error in found):
        # Of alternatives: why the one that was nearest is not met.
        found = [inner for error in found for inner in (nearest(error.context) if error.context else [error])]
    return [f"{error.json_path}: {error.message}" for error in found]


def nearest(errors: Any) -> list[Any]:
    """The errors of the alternative that has fewest."""
    by_alternative: dict[Any, list[Any]] = {}
    for error in errors:
        by_alternative.setdefault(error.relative_schema_path[0], []).append(error)
    return min(by_alternative.values(), key=len)
