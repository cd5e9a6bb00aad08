"""The rows in one JSON value: a list, what pandas writes in its orients, an object around a list, one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from distillkit.data.column_looks import look_at
from distillkit.data.columns import kind_of
from distillkit.data.layouts import choose_layout
from distillkit.data.reading_options import ReadingOptions
from distillkit.data.text_classes import class_of
from distillkit.errors import UsageError

_DEEPEST = 8
_MANY_TEXTS = 10
_MOSTLY = 0.9
_SPLIT_KEYS = frozenset(("columns", "index", "data", "index_names", "column_names"))


class ShapedRows(NamedTuple):
    """Rows, each a string, an object or a list.

    Attributes:
        rows: as they stand in the file.
        how: what the value is, for people; None for a plain list.
    """

    rows: list[Any]
    how: str | None = None


def rows_of_value(value: Any, options: ReadingOptions, name: str) -> ShapedRows:
    """The rows in the value that a JSON file is.

    Args:
        options: the column asked for, and what the user said of the rows.
        name: the file, for messages.

    Raises:
        UsageError: there are none, or it is not clear which list holds them.
    """
    if isinstance(value, list):
        return ShapedRows(value)
    if not isinstance(value, dict):
        raise UsageError(
            f"{name}: {kind_of(value)} instead of a list of texts", hint="write a list of objects, or of strings"
        )
    return _rows_of_object(value, options, name, 0)


def _rows_of_object(value: dict[str, Any], options: ReadingOptions, name: str, depth: int) -> ShapedRows:
    wanted = options.text_column
    record = ShapedRows([value], "one record")
    if any(isinstance(value.get(key), str) for key in (wanted, "text") if key is not None):
        return record
    table = _split_table(value, name) or _table_of_objects(value, wanted) or _table_of_lists(value) or _series(value)
    if table is not None:
        return table
    lists = {key: item for key, item in value.items() if isinstance(item, list)}
    if any(look_at(key, [item]).kind == "chat" for key, item in lists.items()):
        return record
    if wanted in lists and len(lists) > 1:
        return ShapedRows(lists[wanted], f"the list '{wanted}'")
    if _is_answer_of_the_hub(value):
        return ShapedRows([item["row"] for item in value["rows"]], "rows as the Hub's server gives them")
    if len(lists) == 1:
        key, items = next(iter(lists.items()))
        if any(isinstance(item, (dict, list)) for item in items) or not _is_record(value, options, name):
            return ShapedRows(items, f"the list '{key}'")
        return record
    if _is_record(value, options, name):
        return record
    if lists:
        raise UsageError(
            f"{name}: several lists, and it is not clear which one holds the texts; columns: {', '.join(lists)}",
            hint="write each list into a file of its own, such as train.json and test.json",
        )
    objects = [item for item in value.values() if isinstance(item, dict)]
    if len(objects) == 1 and depth < _DEEPEST:
        return _rows_of_object(objects[0], options, name, depth + 1)
    return record


def _is_record(value: Mapping[str, Any], options: ReadingOptions, name: str) -> bool:
    """Whether an object by itself has a column of text, or is a conversation."""
    try:
        choose_layout({key: [item] for key, item in value.items()}, replace(options, text_column=None), name)
    except UsageError:
        return False
    return True


def _split_table(value: Mapping[str, Any], name: str) -> ShapedRows | None:
    """`{"columns": [names], "index": […], "data": [[cells], …]}`, the orient "split" of pandas."""
    columns, data = value.get("columns"), value.get("data")
    if not (set(value) <= _SPLIT_KEYS and isinstance(columns, list) and isinstance(data, list)):
        return None
    if not all(isinstance(row, list) for row in data):
        return None
    rows: list[Any] = []
    for number, row in enumerate(data, 1):
        if len(row) != len(columns):
            raise UsageError(f"{name}, row {number:,}: {len(row)} cells, but {len(columns)} columns are named")
        rows.append({str(column): cell for column, cell in zip(columns, row, strict=True)})
    return ShapedRows(rows, "a table of pandas, orient split")


def _table_of_objects(value: Mapping[str, Any], wanted: str | None) -> ShapedRows | None:
    """`{column: {index: cell}}` or `{index: {column: cell}}`, the orients "columns" and "index" of pandas."""
    if not value or not all(isinstance(item, dict) and item for item in value.values()):
        return None
    inner = next(iter(value.values()))
    is_regular = all(item.keys() == inner.keys() for item in value.values())
    names = [key for key in (wanted, "text") if key is not None]
    if is_regular and _are_numbers(inner) and not _are_numbers(value):
        by_column = True
    elif _are_numbers(value):
        by_column = False
    elif any(key in value for key in names) and is_regular:
        by_column = True
    elif len(value) == 1:
        return None
    elif any(key in inner for key in names):
        by_column = False
    else:
        by_column = is_regular and len(inner) > len(value)
    if not by_column:
        return ShapedRows(list(value.values()), "objects by key")
    rows = [{column: cells[index] for column, cells in value.items()} for index in inner]
    return ShapedRows(rows, "a table of pandas, orient columns")


def _table_of_lists(value: Mapping[str, Any]) -> ShapedRows | None:
    """`{column: [cells]}` with columns of one length."""
    if len(value) < 2 or not all(isinstance(item, list) for item in value.values()):
        return None
    length = len(next(iter(value.values())))
    if not length or any(len(item) != length for item in value.values()):
        return None
    if not any(all(not isinstance(cell, (dict, list)) for cell in item) for item in value.values()):
        return None
    rows = [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]
    return ShapedRows(rows, "columns, each a list")


def _series(value: Mapping[str, Any]) -> ShapedRows | None:
    """`{index: text}`, a Series of pandas; `{name: text}` of many texts, which no record has."""
    if not value or not all(item is None or isinstance(item, str) for item in value.values()):
        return None
    if _are_numbers(value):
        return ShapedRows(list(value.values()), "a series of pandas")
    prose = sum(item is not None and class_of(item) == "prose" for item in value.values())
    if len(value) >= _MANY_TEXTS and prose >= _MOSTLY * len(value):
        return ShapedRows(list(value.values()), "texts by name")
    return None


def _is_answer_of_the_hub(value: Mapping[str, Any]) -> bool:
    rows = value.get("rows")
    if not (isinstance(rows, list) and rows and "features" in value):
        return False
    return all(isinstance(row, dict) and isinstance(row.get("row"), dict) for row in rows)


def _are_numbers(keys: Mapping[str, Any]) -> bool:
    return all(key.lstrip("-").isdigit() for key in keys)
