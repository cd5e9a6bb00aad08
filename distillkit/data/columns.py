"""Which column of a table holds the text, and whether a cell is one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from distillkit.errors import UsageError

_NUMBER = re.compile(r"\s*[+-]?(\d[\d_ ]*)?[.,]?\d+([eE][+-]?\d+)?\s*")
_MOST_LISTED = 20
_FLAG_HINT = "name the column with --text-column"


def looks_like_number(text: str) -> bool:
    """Whether a cell of a CSV file, where everything is text, is only a number."""
    return _NUMBER.fullmatch(text) is not None


def kind_of(value: Any) -> str:
    """What a JSON value is, for messages: "null", "the number 3", "a list"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return f"the number {value}" if len(str(value)) < 30 else "a number"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"


def choose_column(columns: Mapping[str, bool], wanted: str | None, where: str) -> str:
    """The column to read: `wanted`, else the one named `text`, else the only one that holds text.

    Args:
        columns: the name of each column, and whether it holds text.
        wanted: the column asked for, None to find it.
        where: the file or data set, for the message.

    Raises:
        UsageError: there is no such column, it holds no text, or it is not clear which one is meant.
    """
    names = list(columns)
    listed = ", ".join(names[:_MOST_LISTED]) + (", …" if len(names) > _MOST_LISTED else "") or "none"
    if wanted is not None:
        if wanted not in columns:
            close = difflib.get_close_matches(wanted, names, n=1)
            hint = f"did you mean --text-column {close[0]}?" if close else _FLAG_HINT
            raise UsageError(f"{where}: no column '{wanted}'; columns: {listed}", hint=hint)
        if not columns[wanted]:
            raise UsageError(f"{where}: column '{wanted}' does not hold text; columns: {listed}", hint=_FLAG_HINT)
        return wanted
    if columns.get("text"):
        return "text"
    texts = [name for name, is_text in columns.items() if is_text]
    if len(texts) == 1:
        return texts[0]
    which = "no column holds text" if not texts else "it is not clear which column holds the text"
    raise UsageError(f"{where}: {which}; columns: {listed}", hint=_FLAG_HINT)
