"""What stands over the rows of a table: blank lines, comments, titles."""

from __future__ import annotations

from collections.abc import Sequence

from distillkit.data.csv_header import has_names, has_usual_name
from distillkit.data.csv_records import DELIMITERS, plain_cells

_MOST_TITLES = 8


def title_lines(lines: Sequence[str], named: str | None) -> int:
    """How many lines of one cell stand over a row that names several columns, as in reports from spreadsheets; 0 for none."""
    for count, line in enumerate(lines[: _MOST_TITLES + 1]):
        for mark in (named,) if named else DELIMITERS:
            cells = [cell.strip('"') for cell in plain_cells(line, mark)]
            if len(cells) > 1 and all(cells) and not any(cell[0].isspace() for cell in cells) and has_names(cells):
                below = sum(line.count(mark) >= len(cells) - 1 for line in lines[count + 1 : count + 4])
                return count if has_usual_name(cells) and below == len(lines[count + 1 : count + 4]) > 0 else 0
        marks = [mark for mark in DELIMITERS if mark in line]
        if marks and all(sum(map(bool, map(str.strip, plain_cells(line, mark)))) > 1 for mark in marks):
            return 0
    return 0


def blank_lines(lines: Sequence[str]) -> int:
    """How many lines at the start are blank."""
    return next((number for number, line in enumerate(lines) if line.strip()), len(lines))


def comment_lines(lines: Sequence[str], named: str | None) -> int:
    """How many lines at the start are comments (`# …`) over a table."""
    count = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    if count == 0 or count == len(lines):
        return 0
    delimiters = (named,) if named else DELIMITERS
    parts = [mark for mark in delimiters if lines[count].count(mark) > 0]
    if any(lines[count - 1].count(mark) == lines[count].count(mark) for mark in parts):
        return count - 1  # `#id<tab>text` names the columns.
    return count if parts and has_names(lines[count].rstrip("\n").split(parts[0])) else 0
