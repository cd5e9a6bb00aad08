"""Rows of text from JSON Lines, streamed, and from JSON, held as a whole.

The name of a file says which of the two is tried first, not what is in it: an array in a `.jsonl` file and lines in a
`.json` file are read as what they are.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

from distillkit.console import format_bytes
from distillkit.data.bad_rows import BadRow, text_row
from distillkit.data.column_looks import look_at
from distillkit.data.columns import SAMPLE_ROWS, kind_of
from distillkit.data.formats import DataFile
from distillkit.data.json_shapes import rows_of_value
from distillkit.data.layouts import choose_layout
from distillkit.data.rows import Row
from distillkit.data.text_decoding import decode_blocks, decode_lines
from distillkit.errors import UsageError

# JSON has to be held as a whole, JSON Lines has not.
_LARGEST_JSON = 1 << 30
# Rows are looked at together before the column is chosen; fewer of them where they are long.
_SAMPLE_CHARACTERS = 64 << 20
_WHITE_SPACE = " \t\n\r"
# What `_width` says of rows that are no lists of cells.
_OBJECTS, _CONVERSATIONS = 0, -1
# The column of rows that are conversations themselves.
_TURNS = "messages"
_JSONL_HINT = "JSON Lines has one object on each line: json.dumps(row) + '\\n'"


class _Value(NamedTuple):
    """A JSON value of a file, where it stands, and what is wrong if it could not be read."""

    value: Any
    where: str
    origin: str
    fault: str | None = None


def read_jsonl(file: DataFile) -> Iterator[Row | BadRow]:
    """Rows of a JSON Lines file: an object or a string on each line.

    A file that is one JSON value, or several that span lines, is read as `read_json` does.

    Raises:
        UsageError: the file cannot be used, or it is not clear which column holds the text.
    """
    with file.open() as stream:
        lines = decode_lines(_blocks(stream, file), file.name)
        begun, size = [], 0
        for line in lines:
            begun.append(line)
            size += len(line)
            if len(begun) >= SAMPLE_ROWS or size > _SAMPLE_CHARACTERS:
                break
        if _are_lines(begun):
            yield from _text_rows(_line_values(itertools.chain(begun, lines), file.name), file)
        else:
            yield from _document_rows(_joined(itertools.chain(begun, lines), file.name), file, is_named_lines=True)


def read_json(file: DataFile) -> Iterator[Row | BadRow]:
    """Rows of a JSON file: a list of objects or strings, a table as pandas writes it, an object around one list, one record.

    A file of several JSON values, one on each line, is read as JSON Lines.

    Raises:
        UsageError: the file cannot be used, or it is not clear which column holds the text.
    """
    with file.open() as stream:
        yield from _document_rows(_joined(_blocks(stream, file), file.name), file, is_named_lines=False)


def _blocks(stream: IO[bytes], file: DataFile) -> Iterator[str]:
    return decode_blocks(stream, file.name, file.notes, file.options.encoding)


def _joined(blocks: Iterable[str], name: str) -> str:
    pieces: list[str] = []
    size = 0
    for block in blocks:
        pieces.append(block)
        size += len(block)
        if size > _LARGEST_JSON:
            hint = "JSON Lines (.jsonl) is read row by row"
            raise UsageError(f"{name}: JSON files beyond {format_bytes(_LARGEST_JSON)} are not read", hint=hint)
    return "".join(pieces)


def _are_lines(lines: list[str]) -> bool:
    """Whether lines are values of their own; where the first is none, half of them must be rows."""
    filled = [line for line in lines if line.strip()]
    if not filled:
        return True
    first, fault = _parsed(filled[0])
    if fault is None and len(filled) > 1:
        return True
    if fault is None:
        return not isinstance(first, (list, dict))
    return 2 * sum(isinstance(_parsed(line)[0], (dict, str)) for line in filled) >= len(filled)


def _parsed(text: str) -> tuple[Any, str | None]:
    """The value of a JSON text, or None and what is wrong with it."""
    try:
        return json.loads(text), None
    except json.JSONDecodeError as error:
        return None, f"not valid JSON ({error.msg}, character {error.pos + 1:,})"
    except (ValueError, RecursionError) as error:
        return None, f"JSON that cannot be read ({error})"


def _line_values(lines: Iterable[str], name: str) -> Iterator[_Value]:
    row = 0
    for number, line in enumerate(lines, 1):
        if line.strip():
            row += 1
            value, fault = _parsed(line)
            yield _Value(value, f"{name}, row {row:,} (line {number:,})", f"{name}:{number}", fault)


def _document_rows(text: str, file: DataFile, *, is_named_lines: bool) -> Iterator[Row | BadRow]:
    """Rows of a text that is one JSON value, several that span lines, or one on each line."""
    name = file.name
    values: list[tuple[Any, int]] = []
    fault: UsageError | None = None
    try:
        values = list(_values_in(text))
    except json.JSONDecodeError as error:
        where = f"{name}, line {error.lineno:,}, character {error.colno:,}"
        what = _likeness(text)
        fault = UsageError(
            f"{where}: not valid JSON ({error.msg}){f'; {what[0]}' if what else ''}", hint=what and what[1]
        )
    except (ValueError, RecursionError) as error:
        fault = UsageError(f"{name}: JSON that cannot be read ({error})")
    if len(values) != 1:
        lines = text.split("\n")
        if sum(1 for line in lines if line.strip()) > 1 and _are_lines(lines[:SAMPLE_ROWS]):
            yield from _text_rows(_line_values(lines, name), file)
            return
    del text
    if fault is not None:
        if is_named_lines and not values and fault.hint is None:
            fault.hint = _JSONL_HINT
        raise fault
    if len(values) == 1:
        rows, how = rows_of_value(values[0][0], file.options, name)
        if rows == [values[0][0]]:
            # One record: where it begins is where it stands.
            line = values[0][1]
            yield from _text_rows([_Value(rows[0], f"{name}, row 1 (line {line:,})", f"{name}:{line}")], file)
            return
        if how is not None or is_named_lines:
            file.notes.read_as(name, f"JSON: {how or 'a list'}")
        numbered = (_Value(value, f"{name}, row {row:,}", f"{name}:{row}") for row, value in enumerate(rows, 1))
    else:
        file.notes.read_as(name, "JSON: values one after another, each on several lines")
        numbered = (
            _Value(value, f"{name}, row {row:,} (line {line:,})", f"{name}:{line}")
            for row, (value, line) in enumerate(values, 1)
        )
    yield from _text_rows(numbered, file)


def _values_in(text: str) -> Iterator[tuple[Any, int]]:
    """The JSON values that stand one after another in a text, each with the number of its first line.

    Raises:
        json.JSONDecodeError: something else stands there.
        ValueError: a number is too long; RecursionError: values are nested too deeply.
    """
    decoder = json.JSONDecoder()
    position, line, counted = 0, 1, 0
    while True:
        while position < len(text) and text[position] in _WHITE_SPACE:
            position += 1
        if position == len(text):
            return
        line += text.count("\n", counted, position)
        counted = position
        value, position = decoder.raw_decode(text, position)
        yield value, line


def _likeness(text: str) -> tuple[str, str] | None:
    """What a text that is no JSON looks like, and what to do with it."""
    beginning = text[:4096].strip()
    lines = [line.rstrip() for line in beginning.split("\n")]
    if beginning.startswith(("{'", "[{'", "['")) or "': '" in lines[0]:
        return "it looks like Python's notation with single quotes", "write the rows with json.dumps"
    if lines[0].startswith("{") and lines[0].endswith("},"):
        return "its lines end with commas", "remove the commas, or put the rows into [ and ]"
    if beginning.startswith("<"):
        return "it looks like HTML or XML", "fetch the file itself rather than a page about it"
    if beginning[:1] not in ("{", "[", '"'):
        return "it looks like plain text", "rename plain text to .txt, a table to .csv or .tsv"
    return None


def _text_rows(values: Iterable[_Value], file: DataFile) -> Iterator[Row | BadRow]:
    """Rows from values, whose first ones tell what they are and which column holds the text."""
    iterator = iter(values)
    first: list[_Value] = []
    size = 0
    for value in iterator:
        first.append(value)
        size += _size(value.value)
        if len(first) >= SAMPLE_ROWS or size > _SAMPLE_CHARACTERS:
            break
    readable = [value.value for value in first if value.fault is None]
    kinds = {kind: sum(isinstance(value, kind) for value in readable) for kind in (str, dict, list)}
    kind = max(kinds, key=lambda kind: kinds[kind])
    if not kinds[kind] and readable:
        raise UsageError(
            f"{first[0].where}: {kind_of(readable[0])} instead of text", hint="write an object or a string for each row"
        )
    if kind is str:
        for value in itertools.chain(first, iterator):
            if isinstance(value.value, (dict, list)):
                yield BadRow(value.where, f"{kind_of(value.value)} among strings", is_fault=True)
            else:
                yield text_row(value.value, value.where, value.origin, value.fault)
        return
    width = _width(readable, file.name) if kind is list else _OBJECTS
    columns: dict[str, list[Any]] = {}
    for number, value in enumerate(readable):
        for key, cell in (_cells(value, width) or {}).items():
            columns.setdefault(key, [None] * len(readable))[number] = cell
    layout = choose_layout(columns, file.options, file.name)
    layout.note(file.name, file.notes)
    for value, where, origin, fault in itertools.chain(first, iterator):
        cells = _cells(value, width)
        if fault is not None or cells is None:
            yield (
                text_row(value, where, origin, fault)
                if not isinstance(value, str)
                else BadRow(where, "a string among objects", is_fault=True)
            )
            continue
        missing = next((name for name in layout.needed if name not in cells), None)
        if missing is not None:
            listed = ", ".join(cells) or "none"
            yield BadRow(where, f"no column '{missing}'; columns: {listed}", is_fault=True, wanted=layout.wanted)
        else:
            yield layout.row(cells, where, origin)


def _size(value: Any) -> int:
    """Characters of a row, as far as they stand at its top."""
    cells = value.values() if isinstance(value, dict) else (value,)
    return sum(len(cell) for cell in cells if isinstance(cell, (str, list)))


def _width(rows: list[Any], name: str) -> int:
    """How many cells the rows have, where rows are lists; or that they are lists of turns."""
    lists = [row for row in rows if isinstance(row, list)]
    width = len(lists[0])
    if any(len(row) != width or any(isinstance(cell, (dict, list)) for cell in row) for row in lists):
        if look_at(_TURNS, lists).kind == "chat":
            return _CONVERSATIONS
        raise UsageError(
            f"{name}: its rows are lists rather than objects or strings",
            hint='write an object for each row: {"text": …}',
        )
    return width


def _cells(value: Any, width: int) -> dict[str, Any] | None:
    """A row as an object; rows that are lists of `width` cells have columns `column1`, `column2` and so on, those that are
    lists of turns have one column of them."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        return None
    if width == _CONVERSATIONS:
        return {_TURNS: value}
    return {f"column{number}": cell for number, cell in enumerate(value, 1)} if width and len(value) == width else None
