"""Rows of text from CSV and TSV files, streamed, in whatever dialect they are written.

A record that is not what it should be is a bad row with its number and line; one that cannot be told from its neighbours
stops the reading. A text that silently became "42", or two rows that silently became one, would train the student on them.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence

from distillkit.data.bad_rows import BadRow
from distillkit.data.columns import SAMPLE_ROWS
from distillkit.data.conversation_columns import TEXT
from distillkit.data.csv_dialect import Table, broken_record, find_table, swallowed_rows
from distillkit.data.csv_records import BrokenRecordError, Record, records
from distillkit.data.formats import DataFile
from distillkit.data.layouts import Layout, choose_layout
from distillkit.data.rows import Row
from distillkit.data.text_classes import looks_like_number
from distillkit.data.text_decoding import LONGEST_ROW, decode_blocks, decode_lines
from distillkit.errors import UsageError

_SAMPLE_CHARACTERS = 1 << 20
# What R, pandas, Polars, databases and Excel write where there is no value.
_MISSING = frozenset(
    ("NA", "<NA>", "N/A", "#N/A", "NaN", "nan", "NULL", "null", "None", "\\N", "#NAME?", "#REF!", "#VALUE!")
)
_SAMPLE_LINES = 4000


def read_csv(file: DataFile) -> Iterator[Row | BadRow]:
    """Rows of a CSV or TSV file; delimiter, quotes and header are found where the options do not say them.

    Raises:
        UsageError: the file cannot be used, or it is not clear how it is to be read.
    """
    with file.open() as stream:
        blocks = decode_blocks(stream, file.name, file.notes, file.options.encoding)
        previous_limit = csv.field_size_limit(LONGEST_ROW)
        try:
            yield from _table_rows(decode_lines(blocks, file.name), file)
        finally:
            csv.field_size_limit(previous_limit)


def _table_rows(lines: Iterator[str], file: DataFile) -> Iterator[Row | BadRow]:
    name, notes = file.name, file.notes
    head, complete = _sample_lines(lines)
    table = find_table(head, file.options, name, complete=complete)
    if table is None:
        return
    if table.remark is not None:
        notes.read_as(name, table.remark)
        notes.remark_of(name, table.remark)
    found = _records(itertools.chain(head[table.skipped_lines :], lines), table, file)
    if table.has_header:
        next(found)
    sample = list(itertools.islice(found, SAMPLE_ROWS))
    whole = [row.cells for row in sample if len(row.cells) == table.width]
    if not whole:
        yield from (_bad_width(row, number, table, name) for number, row in enumerate(sample, 1))
        return
    layout = _choose(table, whole, file)
    places = {column: table.columns.index(column) for column in layout.names}
    for number, row in enumerate(itertools.chain(sample, found), 1):
        cells = row.cells
        where = f"{name}, row {number:,} (line {row.number:,})"
        if len(cells) != table.width:
            if any(map(str.strip, cells)):
                yield _bad_width(row, number, table, name)
            else:
                notes.count("blank rows left out")
        elif table.width > 1 and not any(map(str.strip, cells)):
            notes.count("blank rows left out")
        else:
            found_cells = {column: cells[place] for column, place in places.items()}
            yield _row(layout, found_cells, where, f"{name}:{row.number}")


def _sample_lines(lines: Iterator[str]) -> tuple[list[str], bool]:
    """The first lines, enough to judge by, and whether they are all."""
    head: list[str] = []
    size = 0
    for line in lines:
        head.append(line)
        size += len(line)
        if size > _SAMPLE_CHARACTERS or len(head) >= _SAMPLE_LINES:
            return head, False
    return head, True


def _records(lines: Iterable[str], table: Table, file: DataFile) -> Iterator[Record]:
    """The records of the whole file, each checked not to have swallowed others."""
    count = 0
    try:
        for row in records(lines, table.dialect, table.skipped_lines + 1):
            if len(row.lines) > 1 and table.shape.swallows(row.lines):
                _report_swallowed(row, table, file)
            if table.trailing and len(row.cells) == table.width + 1 and not row.cells[-1].strip():
                row = row._replace(cells=row.cells[:-1])
            yield row
            count += 1
    except BrokenRecordError as error:
        raise broken_record(
            file.name, count + 1 - table.has_header, error.number, error.reason, table.dialect
        ) from error


def _report_swallowed(row: Record, table: Table, file: DataFile) -> None:
    if not table.quoting_given:
        raise swallowed_rows(file.name, row.number, len(row.lines))
    file.notes.remark(
        f"{file.name}, line {row.number:,}: a quoted cell of {len(row.lines):,} lines that look like rows"
    )


def _row(layout: Layout, cells: dict[str, str], where: str, origin: str) -> Row | BadRow:
    if layout.format != TEXT:
        return layout.row({name: None if _is_missing(cell) else cell for name, cell in cells.items()}, where, origin)
    [(column, cell)] = cells.items()
    problem = _problem(cell)
    return Row(cell, origin) if problem is None else BadRow(f"{where}, column '{column}'", problem)


def _choose(table: Table, rows: Sequence[Sequence[str]], file: DataFile) -> Layout:
    """What the rows are, noted."""
    columns: dict[str, list[str | None]] = {}
    for name, cells in zip(table.columns, zip(*rows, strict=True), strict=True):
        columns.setdefault(name, [cell or None for cell in cells])
    layout = choose_layout(columns, file.options, file.name)
    for name in layout.names:
        if table.columns.count(name) > 1:
            raise UsageError(
                f"{file.name}: {table.columns.count(name)} columns are called '{name}'",
                hint="give them names of their own",
            )
    layout.note(file.name, file.notes)
    return layout


def _bad_width(row: Record, number: int, table: Table, name: str) -> BadRow:
    origin = "the header names" if table.has_header else "the others have"
    what = f"{len(row.cells):,} cells, but {origin} {table.width} columns"
    return BadRow(f"{name}, row {number:,} (line {row.number:,})", what, is_fault=True)


def _problem(cell: str) -> str | None:
    """Why a cell is no text; None if it is one."""
    if not cell:
        return "empty"
    if _is_missing(cell):
        return f"{cell.strip()} (no value)"
    if looks_like_number(cell):
        return f"the number {cell.strip()}" if len(cell) < 30 else "a number"
    return None


def _is_missing(cell: str) -> bool:
    return not cell or cell.strip() in _MISSING
