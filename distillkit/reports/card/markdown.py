"""Text that is safe in Markdown: no value of a stranger can break a table, a code span or a paragraph."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from distillkit.console import format_value, sanitize

_LONGEST_VALUE = 200
LONGEST_PARAGRAPH = 600


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: bool = False) -> str:
    """Markdown; what stands in the cells is already safe."""
    marks = ["---"] + ["---:" if numeric else "---"] * (len(columns) - 1)
    lines = [columns, marks, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def value(setting: Any) -> str:
    """The value of a parameter in a code span."""
    return code(setting if isinstance(setting, str) else format_value(setting))


def code(value: Any) -> str:
    """A code span, in which Markdown and HTML mean nothing; a backtick would end it.

    A pipe ends a table's cell even there, and renderers differ on how it is escaped: it becomes a broken bar.
    """
    return f"`{line(value).replace('`', chr(39)).replace('|', '¦') or ' '}`"


def plain(value: Any, longest: int = _LONGEST_VALUE) -> str:
    """Text outside a code span: only what no Markdown renderer gives a meaning to."""
    return re.sub(r"[^\w .,:;@/+()-]", "", line(value, longest))


def line(value: Any, longest: int = _LONGEST_VALUE) -> str:
    """On one line, without what a terminal would obey; what is longer is cut off."""
    shown = " ".join(sanitize(str(value)).split())
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def figure(value: Any, form: str) -> str:
    """A number in a format of `format`; a dash for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return format(value, form) if abs(value) < 1e6 else f"{value:.3g}"


def count(value: Any, what: str) -> str:
    """`1,200 documents`."""
    return f"{value:,} {what}{'' if value == 1 else 's'}" if isinstance(value, int) else f"an unknown number of {what}s"
