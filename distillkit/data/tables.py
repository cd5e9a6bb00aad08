"""Rows of text from CSV and TSV files, streamed where the format allows it.

A row that is not what it should be is refused with its number and column: a text that silently becomes "nan" or "42"
would train the student on it.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from typing import IO

from distillkit.data.columns import choose_column
from distillkit.data.formats import DataFile
from distillkit.data.notes import ReadingNotes
from distillkit.data.rows import Row
from distillkit.data.text_classes import looks_like_number
from distillkit.data.text_decoding import LONGEST_ROW, decode_blocks, decode_lines
from distillkit.errors import UsageError


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
    return choose_column({key: [cell] for key, cell in zip(header, cells, strict=True)}, wanted, name).name


def _csv_text(cell: str, place: str) -> str:
    if not cell:
        raise UsageError(f"{place}: empty instead of text", hint="fill or remove the row")
    if looks_like_number(cell):
        kind = f"the number {cell.strip()}" if len(cell) < 30 else "a number"
        hint = "mend or remove the row, or name another column with --text-column"
        raise UsageError(f"{place}: {kind} instead of text", hint=hint)
    return cell
