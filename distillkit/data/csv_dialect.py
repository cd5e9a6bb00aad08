"""How a delimited file is to be read: the delimiter, the quotes and the header, found from many rows or refused.

A delimiter is right if the rows have the same number of cells with it, the first one too. What is not clear is refused
with what was tried and the option that decides: a text must neither be cut at its commas nor learnt with its neighbours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from distillkit.data.csv_delimiter import (
    DELIMITER_HINT,
    SHOWN,
    UnclearError,
    find_trial,
    has_row_names,
    header_width,
)
from distillkit.data.csv_header import Verdict, has_usual_name, judge_header
from distillkit.data.csv_preamble import blank_lines, comment_lines, title_lines
from distillkit.data.csv_quoting import RowShape, Trial
from distillkit.data.csv_records import DELIMITERS, NO_DELIMITER, Dialect
from distillkit.data.reading_options import ReadingOptions
from distillkit.errors import UsageError
from distillkit.settings.data_values import delimiter_character


@dataclass(frozen=True)
class Table:
    """How a file is to be read.

    Attributes:
        dialect: delimiter and quotes.
        quoting_given: the user said which quotes there are.
        skipped_lines: how many lines at the start are no rows: `sep=;`, comments, titles.
        columns: the names of the columns; of duplicates only the first one can be chosen.
        has_header: whether the first row names them.
        trailing: rows end in a delimiter that parts nothing.
        shape: what its rows look like.
        remark: what was found, for people; None where it is the usual kind.
    """

    dialect: Dialect
    quoting_given: bool
    skipped_lines: int
    columns: list[str]
    has_header: bool
    trailing: bool
    shape: RowShape
    remark: str | None

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self.columns)


def find_table(lines: Sequence[str], options: ReadingOptions, name: str, *, complete: bool) -> Table | None:
    """How the file that begins with `lines` is to be read; None if it holds no row.

    Args:
        lines: the first lines of the file, each with its LF.
        options: what the user said of it.
        name: the file, for messages; `.tsv` files hold tabs where more than one delimiter fits.
        complete: `lines` is the whole file.

    Raises:
        UsageError: it cannot be told how; the message says what was tried and the hint which option decides.
    """
    blank = skipped = blank_lines(lines)
    named = None
    first = lines[skipped].strip() if skipped < len(lines) else ""
    # The line by which Excel is told the delimiter.
    if first[:4].lower() == "sep=" and len(lines[skipped].rstrip("\n").lstrip()) == 5:
        named = lines[skipped].rstrip("\n").lstrip()[4]
        skipped += 1
    skipped += comment_lines(lines[skipped:], named)
    is_marked = skipped > blank
    skipped += blank_lines(lines[skipped:])
    rows = lines[skipped:]
    if not rows:
        return None
    found: Table | None = None
    unclear: UnclearError | None = None
    try:
        found = _table(rows, skipped, named, options, name, complete=complete, is_marked=is_marked)
    except UnclearError as error:
        unclear = error
    titles = title_lines(rows, named) if options.csv_header == "auto" else 0
    if titles and (found is None or not found.has_header):
        with contextlib.suppress(UnclearError):
            below = _table(rows[titles:], skipped + titles, named, options, name, complete=complete, is_marked=True)
            if below.has_header and below.width > 1:
                return replace(below, remark=f"{below.remark}, title lines above it left out")
    if unclear is not None:
        raise UsageError(f"{name}: {unclear.why}", hint=unclear.hint) from unclear
    return found


def _table(
    rows: Sequence[str],
    skipped: int,
    named: str | None,
    options: ReadingOptions,
    name: str,
    *,
    complete: bool,
    is_marked: bool,
) -> Table:
    """How `rows` are to be read, which begin below `skipped` lines.

    Args:
        named: the delimiter that the file names.
        is_marked: those lines have to be said.
    """
    given = None if options.csv_delimiter is None else delimiter_character(options.csv_delimiter)
    usual = "\t" if ".tsv" in name.lower() else ","
    trial = find_trial(rows, given or named, options, usual=usual, complete=complete)
    _check_rows(trial, name, skipped, options)
    table = _with_header(trial, options, skipped)
    is_plain = not is_marked and _is_usual(table, rows, usual) and has_usual_name(table.columns)
    return replace(table, remark=None) if is_plain else table


def _check_rows(trial: Trial, name: str, skipped: int, options: ReadingOptions) -> None:
    """Refuse a broken record in the sample, and rows that a quotation mark has swallowed."""
    if trial.broken is not None:
        raise broken_record(name, len(trial.rows), skipped + trial.broken.number, trial.broken.reason, trial.dialect)
    if trial.swallowed is not None and options.csv_quoting == "auto":
        raise swallowed_rows(name, skipped + trial.swallowed.number, len(trial.swallowed.lines))


def broken_record(name: str, row: int, line: int, reason: str, dialect: Dialect) -> UsageError:
    """The error for a record that its dialect does not allow.

    Args:
        row: its number, 0 for the header.
    """
    hint = "quote cells that hold quotes or line ends, and double the quotes in them"
    if dialect.quoting != "none":
        hint += "; --csv-quoting none if quotation marks are part of the texts"
    return UsageError(f"{name}, row {max(row, 1):,} (line {line:,}): not valid CSV ({reason})", hint=hint)


def swallowed_rows(name: str, line: int, lines: int) -> UsageError:
    """The error for an opening quotation mark that makes one cell of several rows."""
    return UsageError(
        f"{name}, line {line:,}: a quotation mark opens a cell of {lines:,} lines that look like rows of their own",
        hint="--csv-quoting none if quotation marks are part of the texts, --csv-quoting double if it is one cell; or mend the row",
    )


def _with_header(trial: Trial, options: ReadingOptions, skipped: int) -> Table:
    first = [cell.strip() for cell in trial.rows[0].cells]
    fitting = header_width(trial)
    if fitting is None and not _may_be_damaged(trial, first):
        raise UnclearError(
            f"the first row has {len(first)} cells ({', '.join(first)[:SHOWN]}), but the rows below have {trial.width}",
            f"mend the first row, or {DELIMITER_HINT}",
        )
    width, trailing = fitting or (len(first), False)
    row_names = has_row_names(trial)
    first = ["", *first] if row_names else [*first, ""][:width]
    below = [row.cells[:width] for row in trial.rows[1:] if width <= len(row.cells) <= width + trailing]
    verdict: Verdict = "present" if options.csv_header == "present" else "absent"
    if row_names:
        verdict = "present"
    elif options.csv_header == "auto":
        verdict = judge_header(first, below, options.text_column)
    if verdict == "unclear":
        raise UnclearError(
            f"it is not clear whether the first row ({', '.join(first)[:SHOWN]}) names the columns",
            "say it with --csv-header present or absent",
        )
    present = verdict == "present"
    columns = [cell if present and cell else f"column{place}" for place, cell in enumerate(first, 1)]
    kind = "TSV" if trial.dialect.delimiter == "\t" else "CSV"
    remark = f"{kind}, {trial.dialect.words()}, " + (
        "first row names the columns" if present else f"no row names the columns ({', '.join(columns)[:SHOWN]})"
    )
    remark += ", delimiters at the ends of rows left out" if trailing else ""
    shape = RowShape(trial.rows, trial.dialect, trial.width)
    return Table(trial.dialect, options.csv_quoting != "auto", skipped, columns, present, trailing, shape, remark)


def _is_usual(table: Table, lines: Sequence[str], delimiter: str) -> bool:
    """Whether a table is of the plain kind, which needs no word: the usual delimiter, double quotes, a header."""
    parts_nothing = table.dialect.delimiter == NO_DELIMITER and not any(
        mark in line for line in lines for mark in DELIMITERS
    )
    return (
        table.has_header
        and not table.trailing
        and (table.dialect.delimiter == delimiter or parts_nothing)
        and table.dialect.quoting == "double"
        and not table.dialect.backslash
    )


def _may_be_damaged(trial: Trial, first: Sequence[str]) -> bool:
    """Whether some rows below have as many cells as the first one, which may then name the columns of a damaged table."""
    return any(len(row.cells) == len(first) for row in trial.rows[1:]) or len(trial.rows) == 1
