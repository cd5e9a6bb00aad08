"""The JSON schemas of what `--json` prints: `distillkit schema`, and the field tables of docs/json-fields.md.

Each file of `distillkit/schemas/` describes one object in JSON Schema (draft 2020-12) and refers to the others by file name.
The file that is called as a command describes what that command prints. They are open: what they do not name may come
later, and is to be ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.errors import UsageError

FOLDER = Path(__file__).resolve().parents[1] / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SUFFIX = ".json"


def schema_names() -> list[str]:
    """The objects that have a schema, by name."""
    return sorted(path.stem for path in FOLDER.glob(f"*{_SUFFIX}"))


def read_schema(name: str) -> dict[str, Any]:
    """The schema of one object, in one piece: what it refers to is in its `$defs`.

    Raises:
        UsageError: there is no such schema.
    """
    if name not in schema_names():
        raise UsageError(f"there is no schema {name!r}", hint="see: distillkit schema")
    parts: dict[str, Any] = {}
    own = _with_parts(_file(name), parts)
    head = {"$schema": DIALECT, "$id": f"urn:distillkit:schema:{name}", "title": name}
    return {**head, **own, **({"$defs": dict(sorted(parts.items()))} if parts else {})}


def _file(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}{_SUFFIX}").read_text(encoding="utf-8"))


def _with_parts(node: Any, parts: dict[str, Any]) -> Any:
    """The same with references into `$defs`; the files that are met are added to `parts`."""
    if isinstance(node, list):
        return [_with_parts(item, parts) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if reference is None:
        return {key: _with_parts(value, parts) for key, value in node.items()}
    name = reference.removesuffix(_SUFFIX)
    if name not in parts:
        parts[name] = None  # Its place, for the case that it is met again in itself.
        parts[name] = _with_parts(_file(name), parts)
    return {**node, "$ref": f"#/$defs/{name}"}


def show_schema(name: str | None, console: Console) -> None:
    """`distillkit schema [NAME]`."""
    if name is None:
        rows = [(item, _file(item).get("description", "")) for item in schema_names()]
        console.table("JSON schemas", ["name", "what it describes"], rows, to_stdout=True)
        return
    console.data(json.dumps(read_schema(name), indent=2, ensure_ascii=False))


# --- docs/json-fields.md ----------------------------------------------------------------------------------------------

PAGE = "json-fields.md"
_INTRODUCTION = """\
# Fields of the JSON objects

Made from the schemas in `distillkit/schemas/` by `python -m distillkit.cli.parameter_pages --write docs`; a test keeps the two
in step. [JSON output](json.md) says what is promised. A field in *italics* may be missing.
"""


def fields_page() -> str:
    """The tables of all objects as a Markdown page."""
    sections = [_INTRODUCTION]
    for name in schema_names():
        schema = _file(name)
        sections.append(f"## {name}\n\n{schema.get('description', '')}\n")
        for number, alternative in enumerate(schema.get("anyOf", [schema])):
            if "$ref" in alternative:
                sections.append(f"Or [{_name_of(alternative)}](#{_name_of(alternative)}).\n")
                continue
            if number:
                sections.append("Or an object with:\n")
            rows = [f"| {field} | {kind} | {words} |" for field, kind, words in _rows(alternative)]
            sections.append("\n".join(["| field | type | what |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(sections)


def _name_of(node: dict[str, Any]) -> str:
    return node["$ref"].removesuffix(_SUFFIX)


def _rows(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(field, type, what it is) of an object and of the objects in it."""
    required = schema.get("required", [])
    for name, node in schema.get("properties", {}).items():
        mark = "" if name in required else "*"
        yield f"{mark}`{prefix}{name}`{mark}", _kind(node), node.get("description", "").replace("|", "\\|")
        yield from _rows(node, f"{prefix}{name}.")
        values = node.get("items", node.get("additionalProperties"))
        if isinstance(values, dict):
            inner = f"{prefix}{name}[]." if "items" in node else f"{prefix}{name}.*."
            for alternative in values.get("anyOf", [values]):
                yield from _rows(alternative, inner)


def _kind(node: dict[str, Any]) -> str:
    if "const" in node:
        return f"`{json.dumps(node['const'])}`"
    if "enum" in node:
        return " or ".join(f"`{json.dumps(value)}`" for value in node["enum"])
    if "$ref" in node:
        return f"[{_name_of(node)}](#{_name_of(node)})"
    if "anyOf" in node:
        return " or ".join(_kind(alternative) for alternative in node["anyOf"])
    kinds = node.get("type", "any")
    words = " or ".join(kinds) if isinstance(kinds, list) else kinds
    items = node.get("items", {})
    return f"{words} of {_kind(items)}" if "$ref" in items or "type" in items else words
