"""Rows of text from JSON Lines, JSON, CSV, TSV and Parquet files, streamed where the format allows it.

A row that is not what it should be is refused with its number and column: a text that silently becomes "nan" or "42"
would train the student on it.
"""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from distillkit.console import format_bytes
from distillkit.data.columns import choose_column, kind_of, looks_like_number
from distillkit.data.formats import DataFile
from distillkit.data.notes import ReadingNotes
from distillkit.data.rows import Row
from distillkit.data.text_decoding import LONGEST_ROW, decode_blocks, decode_lines
from distillkit.errors import UsageError, first_line
from distillkit.interrupts import check_interrupted

# JSON has to be held as a whole, JSON Lines has not.
_LARGEST_JSON = 1 << 30
_PARQUET_ROWS = 512


def _json_text(value: Any, column: str | None, where: str) -> str:
    """The text of one row of JSON: a string, or an object with the text in `column`."""
    place = where
    if isinstance(value, dict):
        if column not in value:
            raise UsageError(f"{where}: no column '{column}'; columns: {', '.join(map(str, value)) or 'none'}")
        value, place = value[column], f"{where}, column '{column}'"
    if not isinstance(value, str):
        raise UsageError(f"{place}: {kind_of(value)} instead of text", hint="mend or remove the row")
    return encodable(value, place)


def encodable(text: str, place: str) -> str:
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
            holds_text = {str(key): isinstance(cell, str) for key, cell in value.items()}
            # A first row whose text is null or a number is a bad row, not a missing column.
            only = next(iter(holds_text)) if len(holds_text) == 1 else None
            known = wanted or ("text" if "text" in holds_text else only)
            column = known if known in holds_text else choose_column(holds_text, wanted, name)
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
        for number, line in enumerate(decode_lines(decode_blocks(stream, name, file.notes), name), 1):
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
        yield from _json_values_rows(stream, file.name, file.text_column, file.notes)


def _json_values_rows(stream: IO[bytes], name: str, wanted: str | None, notes: ReadingNotes) -> Iterator[Row]:
    pieces: list[str] = []
    size = 0
    for block in decode_blocks(stream, name, notes):
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
        lists = {str(key): isinstance(value, list) for key, value in content.items()}
        content = content[choose_column(lists, wanted if lists.get(wanted or "") else None, name)]
    if not isinstance(content, list):
        raise UsageError(f"{name}: {kind_of(content)} instead of a list of texts")
    numbered = ((value, f"{name}, row {row:,}", f"{name}:{row}") for row, value in enumerate(content, 1))
    return _json_rows(numbered, wanted, name)


def _delimiter(header: str) -> str:
    """The character between the cells of a .csv file: spreadsheets of many countries write semicolons."""
    return max(",;\t", key=lambda mark: (header.count(mark), mark == ","))


def read_csv(file: DataFile) -> Iterator[Row]:
    """Rows of a CSV file with a header line, its cells parted by commas, semicolons or tabs.

    Raises:
        UsageError: the file or one of its rows cannot be used.
    """
    with file.open() as stream:
        yield from _csv_rows(stream, file.name, file.text_column, file.notes, delimiter=None)


def read_tsv(file: DataFile) -> Iterator[Row]:
    """Rows of a TSV file with a header line.

    Raises:
        UsageError: the file or one of its rows cannot be used.
    """
    with file.open() as stream:
        yield from _csv_rows(stream, file.name, file.text_column, file.notes, delimiter="\t")


def _csv_rows(
    stream: IO[bytes], name: str, wanted: str | None, notes: ReadingNotes, *, delimiter: str | None
) -> Iterator[Row]:
    lines = decode_lines(decode_blocks(stream, name, notes), name)
    header_line, skipped_lines = next(lines, ""), 0
    while header_line and not header_line.strip():
        header_line, skipped_lines = next(lines, ""), skipped_lines + 1
    delimiter = delimiter or _delimiter(header_line)
    previous_limit = csv.field_size_limit(LONGEST_ROW)
    try:
        reader = csv.reader(itertools.chain((header_line,), lines), delimiter=delimiter, strict=True)
        header: list[str] = []
        column = ""
        row, last_line = 0, skipped_lines
        while True:
            first_line = last_line + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                where = f"{name}, row {row + 1:,} (line {first_line:,})"
                hint = "quote cells that hold quotes or line ends, and double the quotes in them"
                raise UsageError(f"{where}: not valid CSV ({error})", hint=hint) from error
            if cells is None:
                break
            last_line = skipped_lines + reader.line_num
            if not header:
                header = cells
                continue
            if not cells:
                continue
            row += 1
            where = f"{name}, row {row:,} (line {first_line:,})"
            if len(cells) != len(header):
                raise UsageError(
                    f"{where}: {len(cells)} cells, but the header names {len(header)} columns",
                    hint=f"quote cells that hold '{delimiter}' or quotes; columns: {', '.join(header)}",
                )
            if not column:
                column = _csv_column(header, cells, wanted, name)
            yield Row(_csv_text(cells[header.index(column)], f"{where}, column '{column}'"), f"{name}:{first_line}")
    finally:
        csv.field_size_limit(previous_limit)


def _csv_column(header: Sequence[str], cells: Sequence[str], wanted: str | None, name: str) -> str:
    """The text column, judged by the first row; a named one is taken even if its first cell is bad."""
    holds_text = {key: not looks_like_number(cell) for key, cell in zip(header, cells, strict=True)}
    known = wanted or ("text" if "text" in holds_text else None)
    return known if known in holds_text else choose_column(holds_text, wanted, name)


def _csv_text(cell: str, place: str) -> str:
    if not cell:
        raise UsageError(f"{place}: empty instead of text", hint="fill or remove the row")
    if looks_like_number(cell):
        kind = f"the number {cell.strip()}" if len(cell) < 30 else "a number"
        hint = "mend or remove the row, or name another column with --text-column"
        raise UsageError(f"{place}: {kind} instead of text", hint=hint)
    return cell


def parquet_column(schema: Any, wanted: str | None, where: str) -> str:
    """The text column of a `pyarrow.Schema`.

    Args:
        wanted: the column asked for, None to find it.
        where: the file or data set, for the message.

    Raises:
        UsageError: there is no such column, it holds no text, or it is not clear which one is meant.
    """
    import pyarrow.types as types

    def is_text(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)

    return choose_column({field.name: is_text(field.type) for field in schema}, wanted, where)


def read_parquet(file: DataFile) -> Iterator[Row]:
    """Rows of a Parquet file; of all its columns only the one with the text is read.

    Raises:
        UsageError: the file or one of its rows cannot be used.
    """
    with file.open() as stream:
        if not file.is_packed:
            yield from _parquet_rows(file.path, file.name, file.text_column, file.notes)
            return
        # Parquet is read from its end, which a gzip stream cannot do.
        with tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(stream, unpacked)
            unpacked.seek(0)
            yield from _parquet_rows(unpacked, file.name, file.text_column, file.notes)


def _parquet_rows(source: Any, name: str, wanted: str | None, notes: ReadingNotes) -> Iterator[Row]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        # Without Arrow's threads: `source` may be a Python stream, and a thread that lets go of it while the interpreter
        # ends takes the process down.
        file = ParquetFile(source, pre_buffer=False)
        column = parquet_column(file.schema_arrow, wanted, name)
        row = 0
        for batch in file.iter_batches(_PARQUET_ROWS, columns=[column], use_threads=False):
            check_interrupted()
            for text in batch.column(0).to_pylist():
                row += 1
                if text is None:
                    notes.count("rows without text left out")
                else:
                    yield Row(encodable(text, f"{name}, row {row:,}, column '{column}'"), f"{name}:{row}")
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise UsageError(
            f"{name}: not a sound Parquet file ({first_line(error)})", hint="fetch the file again"
        ) from error
