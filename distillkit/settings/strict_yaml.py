"""YAML that a stranger may have written: strict, bounded, and with the line in every error.

`yaml.safe_load` lets the last of two equal keys win, expands alias bombs and reads `5e-5` as text; none of that is
acceptable for a configuration (see `config.coerce` for the numbers).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from distillkit.errors import UsageError

MAX_BYTES = 1_000_000


class _StrictLoader(yaml.SafeLoader):
    """Refuses aliases, tags and duplicate keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed", problem_mark=event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem=f"tags ({event.tag}) are not allowed", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
            if key_node.value in seen:
                problem = f"the key {key_node.value!r} stands twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_yaml_mapping(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        UsageError: the file is missing, unreadable, too large, not UTF-8, not YAML, or not a mapping with text keys.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{what} {str(path)!r} is a folder", hint="give the file itself")
        if not path.is_file():
            raise UsageError(f"{what} {str(path)!r} does not exist", hint="check the path")
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{what} {str(path)!r} is larger than {MAX_BYTES:,} bytes", hint="is it the right file?")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {str(path)!r} is not UTF-8 (byte {error.start})", hint="save it as UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise UsageError(f"{what} {str(path)!r} cannot be read: {error}", hint="check the path") from error
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise UsageError(
            f"{what} {str(path)!r}{where}: {error.problem or error.context}", hint="mend the file"
        ) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{what} {str(path)!r} is not valid YAML: {reason}", hint="mend the file") from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UsageError(
            f"{what} {str(path)!r} must map parameter names to values", hint="for example:  sample_size: 500"
        )
    return value


def dump_yaml(value: dict[str, Any]) -> str:
    """YAML text that `read_yaml_mapping` reads back to the same value; keys keep their order."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False)
