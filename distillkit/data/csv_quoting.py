"""Which marks quote the cells of a sample of a delimited file, for a given delimiter, and rows that a quotation swallows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from distillkit.data.csv_header import is_number
from distillkit.data.csv_records import NO_DELIMITER, BrokenRecordError, Dialect, Record, plain_cells, records
from distillkit.settings.parameters import CsvQuoting

# With fewer rows, a quotation mark in the wrong place is rather a mistake than another dialect.
_FEWEST_ROWS = 3
_LONGEST_VALUE = 40
_MOST = 0.9
_NEARLY = 0.99


@dataclass(frozen=True)
class Trial:
    """A sample read by one dialect.

    Attributes:
        dialect: it.
        rows: its records, as far as they could be read.
        broken: the record that could not.
        swallowed: the first record whose lines look like rows of their own.
        width: the number of cells that most rows below the first have.
        agreement: the share of those rows that have it.
    """

    dialect: Dialect
    rows: list[Record]
    broken: BrokenRecordError | None = None
    swallowed: Record | None = None
    width: int = field(init=False)
    agreement: float = field(init=False)

    def __post_init__(self) -> None:
        below = self.rows[1:] or self.rows
        widths = Counter(len(row.cells) for row in below if len(row.cells) > 1 or row.cells[0].strip())
        width, count = widths.most_common(1)[0] if widths else (0, 0)
        object.__setattr__(self, "width", width)
        object.__setattr__(self, "agreement", count / widths.total() if count else 0.0)

    @property
    def is_sound(self) -> bool:
        """Whether all of it could be read and nothing was swallowed."""
        return self.broken is None and self.swallowed is None

    def is_even(self) -> bool:
        """Whether it is sound and all rows, the first one too, have as many cells."""
        return self.is_sound and self.agreement == 1 and len(self.rows[0].cells) == self.width if self.rows else False


class _ColumnShape(NamedTuple):
    """What nearly all cells of a column are; `labels` are all of them where they are few that come again and again."""

    numbers: bool
    values: bool
    prose: bool
    quoted: bool
    labels: frozenset[str] | None

    @classmethod
    def of(cls, cells: Sequence[str], quote: str) -> _ColumnShape:
        def nearly_all(flags: Iterable[bool]) -> bool:
            return sum(flags) >= _MOST * len(cells)

        bare = [cell.strip(quote) for cell in cells]
        labels = frozenset(bare)
        return cls(
            numbers=nearly_all(map(is_number, bare)),
            values=nearly_all(map(_is_value, bare)),
            prose=nearly_all(cell.count(" ") >= 2 for cell in cells),
            quoted=nearly_all(cell.startswith(quote) for cell in cells),
            labels=labels if len(labels) * 3 <= len(cells) else None,
        )

    def fits(self, cell: str, quote: str) -> bool:
        bare = cell.strip(quote)
        return (
            (not self.quoted or cell.startswith(quote))
            and (not self.numbers or is_number(bare))
            and (not self.values or _is_value(bare))
            and (not self.prose or cell.count(" ") >= 2)
            and (self.labels is None or bare in self.labels)
        )


class RowShape:
    """What lines of a table look like, to tell rows from lines of a text inside a cell."""

    def __init__(self, rows: Sequence[Record], dialect: Dialect, width: int) -> None:
        """From the records that stand on one line each and are of `width` cells."""
        self.dialect = dialect
        self.width = width
        self._quote = dialect.quote or "\0"  # A character that no text holds.
        plain = [plain_cells(row.lines[0], dialect.delimiter) for row in rows[1:] if len(row.lines) == 1]
        columns = list(zip(*(cells for cells in plain if len(cells) == width), strict=True))
        self._columns = [_ColumnShape.of(column, self._quote) for column in columns] if width > 1 else []
        # Few lines of a text look like rows by chance where a column holds numbers or labels, or cells are parted by tabs.
        telling = any(column.numbers or column.labels for column in self._columns)
        self._needed = 1 if telling or dialect.delimiter in "\t|" else 3

    def _fits(self, line: str) -> bool:
        cells = plain_cells(line, self.dialect.delimiter)
        return len(cells) == self.width and all(
            column.fits(cell, self._quote) for column, cell in zip(self._columns, cells, strict=True)
        )

    def swallows(self, lines: Sequence[str]) -> bool:
        """Whether a record's lines are rows, which an opening quotation mark has made one cell of."""
        if len(lines) < 2 or not self._columns or self._holds_doubled_marks(lines):
            return False
        inner = [line for line in (lines[1:-1] or lines[1:]) if line.strip()]
        return len(inner) >= self._needed and self._fits(lines[0]) and all(map(self._fits, inner))

    def _holds_doubled_marks(self, lines: Sequence[str]) -> bool:
        """Whether marks are doubled in the lines, as only a program that quotes does; empty cells aside."""
        mark = self.dialect.quote
        cells = (cell.strip() for line in lines for cell in plain_cells(line, self.dialect.delimiter))
        return mark is not None and any(mark * 2 in cell and cell != mark * 2 for cell in cells)


def _is_value(cell: str) -> bool:
    return 0 < len(cell) <= _LONGEST_VALUE and not any(map(str.isspace, cell))


class _Marks:
    """How a quotation mark is used in cells that were parted without regard to quotes."""

    def __init__(self, rows: Sequence[Record], mark: str) -> None:
        self.doubled = self.bare = self.opened = 0
        self.first_row_quoted = bool(rows) and all(_is_closed(cell, mark) for cell in rows[0].cells)
        enclosed: Counter[int] = Counter()
        filled: Counter[int] = Counter()
        with_commas = with_commas_enclosed = 0
        for number, row in enumerate(rows):
            below = number > 0 or len(rows) == 1
            for place, cell in enumerate(row.cells):
                filled[place] += below and bool(cell)
                is_closed = _is_closed(cell, mark)
                if "," in cell or mark in cell.strip(mark):
                    with_commas += 1
                    with_commas_enclosed += is_closed
                if mark not in cell:
                    continue
                if is_closed:
                    enclosed[place] += below
                    self.doubled += mark * 2 in cell[1:-1]
                elif cell.startswith(mark):
                    self.opened += 1
                else:
                    self.bare += 1
        self.most_enclosed = max((enclosed[place] / filled[place] for place in enclosed if filled[place]), default=0.0)
        # Nothing that only quoting explains: doubled marks, or a column or a header of nothing but quoted cells.
        self.seem_text = self.doubled == 0 and self.most_enclosed <= 0.5 and not self.first_row_quoted
        # Spreadsheets quote the cells of their tab-separated files that hold commas or quotes, and only those.
        self.like_a_spreadsheet = with_commas > 0 and with_commas == with_commas_enclosed


def _is_closed(cell: str, mark: str) -> bool:
    """Whether a cell stands in quotation marks, those inside it doubled."""
    return (
        len(cell) > 1 and cell.startswith(mark) and cell.endswith(mark) and mark not in cell[1:-1].replace(mark * 2, "")
    )


def read_sample(lines: Sequence[str], dialect: Dialect, *, complete: bool) -> Trial:
    """A sample read by a dialect.

    Args:
        lines: its lines.
        complete: they are the whole file; else a quotation may be open at their end.
    """
    rows: list[Record] = []
    broken: BrokenRecordError | None = None
    try:
        for row in records(lines, dialect):
            rows.append(row)
    except BrokenRecordError as error:
        broken = error
    trial = Trial(dialect, rows)
    if broken is None and all(len(row.lines) == 1 for row in rows):
        return trial
    shape = RowShape(rows, dialect, trial.width)
    swallowed = next((row for row in rows[1:] if shape.swallows(row.lines)), None)
    if broken is not None and broken.is_unfinished and not complete:
        if swallowed is None and shape.swallows(broken.lines):
            swallowed = Record([], broken.number, broken.lines)
        broken = None
    return Trial(dialect, rows, broken, swallowed)


def try_quotings(lines: Sequence[str], delimiter: str, wanted: CsvQuoting, *, complete: bool) -> list[Trial]:
    """The sample by the quoting that fits it; several trials where they differ and none is better.

    Args:
        lines: of the sample.
        delimiter: of the cells.
        wanted: the parameter `csv_quoting`.
        complete: the sample is the whole file.
    """
    skip_space = _skips_space(lines[0], delimiter) if lines else False

    def trial(quoting: CsvQuoting, *, backslash: bool = False) -> Trial:
        assert quoting != "auto"
        return read_sample(lines, Dialect(delimiter, quoting, backslash, skip_space), complete=complete)

    if wanted != "auto":
        return [trial(wanted)]
    sample = "".join(lines)
    double = trial("double")
    plain = trial("none")
    found = [double]
    if '"' in sample:
        escaped = trial("double", backslash=True) if '\\"' in sample else None
        found = _choose_double(double, plain, escaped)
    if "'" in sample:
        single = trial("single")
        if single.broken is None and _cells(single) != _cells(found[0]):
            found = _choose_single(found, single, plain)
    return found


def _choose_double(double: Trial, plain: Trial, escaped: Trial | None) -> list[Trial]:
    """Double quotes, unless no program that quotes can have written the cells."""
    delimiter = double.dialect.delimiter
    if escaped is not None and escaped.is_sound:
        if not double.is_sound or escaped.agreement > double.agreement:
            return [escaped]
        if escaped.agreement == double.agreement and _cells(escaped) != _cells(double):
            return [double, escaped]
    lines_even = plain.is_even() or delimiter == NO_DELIMITER
    if not double.is_sound or double.agreement < plain.agreement:
        marks = _Marks(plain.rows, '"')
        return [plain] if lines_even and marks.seem_text and len(plain.rows) >= _FEWEST_ROWS else [double]
    alone = _alone(double)
    if any(len(row.cells) != double.width for row in alone):
        return [double]  # Only quotes keep its cells together.
    marks = _Marks(alone, '"')
    if not marks.seem_text or not lines_even or _cells(plain) == _cells(double):
        return [double]
    if delimiter == "\t" and len(alone) == len(double.rows) and not marks.like_a_spreadsheet:
        return [plain]
    # With marks that a program would have quoted, it is not clear whether the others quote.
    return [double, plain] if marks.bare else [double]


def _choose_single(found: list[Trial], single: Trial, plain: Trial) -> list[Trial]:
    """Single quotes where cells are parted by them, or where doubled ones or columns full of them show it.

    An apostrophe at the start of a text and another one at its end are no quotes yet.
    """
    best = found[0]
    if single.is_sound and single.agreement > (best.agreement if best.is_sound else _NEARLY):
        return [single]
    if (
        single.is_even()
        and not best.is_even()
        and len(single.rows) >= _FEWEST_ROWS
        and best.dialect.delimiter != NO_DELIMITER
    ):
        return [single]
    if not best.is_sound or single.agreement < best.agreement:
        return found
    if single.width != best.width and single.is_even() and _cells(best) == _cells(plain):
        return [*found, single]
    marks = _Marks(_alone(single), "'")
    if marks.opened > 0 or not (marks.doubled or marks.most_enclosed == 1):
        return found
    is_clear = (marks.doubled > 0 and single.is_sound) or (marks.most_enclosed == 1 and len(single.rows) > 2)
    return [single] if is_clear and _cells(best) == _cells(plain) else [*found, single]


def _alone(trial: Trial) -> list[Record]:
    """The records that stand on one line each, with their cells as they stand there."""
    alone = [row for row in trial.rows if len(row.lines) == 1]
    return [row._replace(cells=plain_cells(row.lines[0], trial.dialect.delimiter)) for row in alone]


def _cells(trial: Trial) -> list[list[str]]:
    return [row.cells for row in trial.rows]


def _skips_space(header: str, delimiter: str) -> bool:
    """Whether all delimiters of the first row are followed by a blank, which is then no part of the cells."""
    cells = plain_cells(header, delimiter)[1:]
    return delimiter in ",;|" and bool(cells) and all(cell.startswith(" ") and len(cell) > 1 for cell in cells)
