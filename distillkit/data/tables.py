"""Rows of text from JSON Lines and JSON files, streamed where the format allows it.

A row that is not what it should be is refused with its number and column: a text that silently becomes "nan" or "42"
would train the student on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

from distillkit.console import format_bytes
from distillkit.data.columns import choose_column, kind_of
from distillkit.data.formats import DataFile
from distillkit.data.rows import Row
from distillkit.data.text_decoding import decode_blocks, decode_lines
from distillkit.errors import UsageError

# JSON has to be held as a whole, JSON Lines has not.
_LARGEST_JSON = 1 << 30


def _json_text(value: Any, column: str | None, where: str) -> str:
    """The text of one row of JSON: a string, or an object with the text in `column`."""
    place = where
    if isinstance(value, dict):
        if column not in value:
            raise UsageError(f"{where}: no column '{column}'; columns: {', '.join(map(str, value)) or 'none'}")
        value, place = value[column], f"{where}, column '{column}'"
    if not isinstance(value, str):
        raise UsageError(f"{place}: {kind_of(value)} instead of text", hint="mend or remove the row")
    return _encodable(value, place)


def _encodable(text: str, place: str) -> str:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            code = f"\\u{ord(text[error.start]):04x}"
            raise UsageError(f"{place}: half a surrogate pair ({code}) is not text", hint="mend the row") from error
    if "\0" in text:
        raise UsageError(f"{place}: NUL character: not text", hint="mend or remove the row")
    return text


def _json_rows(values: Iterable[tuple[Any, str, str]], wanted: str | None, name: str) -> Iterator[Row]:
    """Rows from (value, where, origin); the column is found in the first object."""
    column: str | None = None
    for value, where, origin in values:
        if column is None and isinstance(value, dict):
            column = choose_column({str(key): [cell] for key, cell in value.items()}, wanted, name).name
        yield Row(_json_text(value, column, where), origin)


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not valid JSON ({error.msg}, character {error.pos + 1:,})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: JSON that cannot be read ({error})") from error


def read_jsonl(file: DataFile) -> Iterator[Row]:
    """Rows of a JSON Lines file: an object or a string on each line.

    Raises:
        UsageError: the file or one of its rows cannot be used.
    """
    name = file.name

    def values(stream: IO[bytes]) -> Iterator[tuple[Any, str, str]]:
        row = 0
        for number, line in enumerate(
            decode_lines(decode_blocks(stream, name, file.notes, file.options.encoding), name), 1
        ):
            if line.strip():
                row += 1
                where = f"{name}, row {row:,} (line {number:,})"
                yield _parse_json(line, where), where, f"{name}:{number}"

    with file.open() as stream:
        yield from _json_rows(values(stream), file.text_column, name)


def read_json(file: DataFile) -> Iterator[Row]:
    """Rows of a JSON file: a list of objects or strings, or an object that holds one such list.

    A file of several JSON values, one on each line, is read as JSON Lines, whatever its name says.

    Raises:
        UsageError: the file or one of its rows cannot be used.
    """
    with file.open() as stream:
        blocks = decode_blocks(stream, file.name, file.notes, file.options.encoding)
        yield from _json_values_rows(blocks, file.name, file.text_column)


def _json_values_rows(blocks: Iterable[str], name: str, wanted: str | None) -> Iterator[Row]:
    pieces: list[str] = []
    size = 0
    for block in blocks:
        pieces.append(block)
        size += len(block)
        if size > _LARGEST_JSON:
            hint = "JSON Lines (.jsonl) is read row by row"
            raise UsageError(f"{name}: JSON files beyond {format_bytes(_LARGEST_JSON)} are not read", hint=hint)
    text = "".join(pieces)
    del pieces
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            where = f"{name}, line {error.lineno:,}, character {error.colno:,}"
            raise UsageError(f"{where}: not valid JSON ({error.msg})") from error
        lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
        places = ((line, f"{name}, row {row:,} (line {n:,})", f"{name}:{n}") for row, (n, line) in enumerate(lines, 1))
        return _json_rows(((_parse_json(line, where), where, at) for line, where, at in places), wanted, name)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: JSON that cannot be read ({error})") from error
    if isinstance(content, dict):
        lists = [str(key) for key, value in content.items() if isinstance(value, list)]
        chosen = wanted if wanted in lists else lists[0] if len(lists) == 1 else None
        if chosen is None:
            raise UsageError(f"{name}: it is not clear which list holds the texts; lists: {', '.join(lists) or 'none'}")
        content = content[chosen]
    if not isinstance(content, list):
        raise UsageError(f"{name}: {kind_of(content)} instead of a list of texts")
    numbered = ((value, f"{name}, row {row:,}", f"{name}:{row}") for row, value in enumerate(content, 1))
    return _json_rows(numbered, wanted, name)
