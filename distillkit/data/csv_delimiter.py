"""What parts the cells of a delimited file, with which quotes: tried out on many rows, and refused where it is not clear."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distillkit.data.csv_header import has_names, has_usual_name, is_number, judge_header
from distillkit.data.csv_quoting import Trial, read_sample, try_quotings
from distillkit.data.csv_records import DELIMITERS, NO_DELIMITER, Dialect, Record, delimiter_words
from distillkit.data.reading_options import ReadingOptions

_ENOUGH = 0.99  # Beyond this agreement, rows of other widths are bad rows and the delimiter is right.
SHOWN = 40  # Characters of a row, in messages.
_UNUSUAL_DELIMITERS = ("\x01", "\x1f", "\x02", "^", "~", "¦", "¬", "§", "::", "@@", "##", "$$", "|||")
_FEWEST_PARTED = 5
_QUOTED_NAMES = re.compile(r'"[^"]*"( "[^"]*")+')  # What R parts with spaces has its names in quotes.
DELIMITER_HINT = "say with --csv-delimiter what parts the cells (tab for a tab)"
_ONE_COLUMN_HINT = "--csv-delimiter tab reads each line as one text, --csv-delimiter , parts them"


class UnclearError(Exception):
    """Why there is no one way to read a sample, and what to do."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


def find_trial(
    lines: Sequence[str], delimiter: str | None, options: ReadingOptions, *, usual: str, complete: bool
) -> Trial:
    """The one way in which the lines can be read.

    Args:
        lines: the rows, the first one too.
        delimiter: that is given; None: it is to be found.
        usual: the one that is expected where several fit.
        complete: `lines` are all rows of the file.

    Raises:
        UnclearError: there is none, or more than one.
    """

    def tried(mark: str) -> list[Trial]:
        return try_quotings(lines, mark, options.csv_quoting, complete=complete)

    if delimiter is not None:
        if not any(delimiter in line for line in lines):
            _check_absent(delimiter, {mark: tried(mark)[0] for mark in DELIMITERS if mark in lines[0]})
        return _only(tried(delimiter))
    by_mark = {mark: tried(mark) for mark in DELIMITERS if any(mark in line for line in lines)}
    trials = {mark: found[0] for mark, found in by_mark.items()}
    fitting = [mark for mark, trial in trials.items() if _fits(trial)]
    if fitting:
        # A mark with a blank behind it is punctuation rather than what another one is.
        mark = _best([mark for mark in fitting if not _is_punctuation(mark, lines)] or fitting, trials, usual)
        trial = _only(by_mark[mark])
        _check_prose(trial, options)
        counts = {other: {line.count(other) for line in lines} for other in trials if other != mark}
        rivals = [other for other, found in counts.items() if len(found) == 1 and not _is_punctuation(other, lines)]
        if rivals and _is_punctuation(mark, lines):
            raise UnclearError(
                f"it is not clear whether '{mark}' or '{delimiter_words(rivals[0])}' parts the cells", DELIMITER_HINT
            )
        return trial
    broken = [trial for trial in trials.values() if trial.rows and _is_broken_table(trial)]
    if broken:
        return max(broken, key=lambda trial: (trial.width, trial.agreement))
    if _QUOTED_NAMES.fullmatch(lines[0].rstrip("\n")) and _fits(spaced := _only(tried(" "))):
        return spaced
    _check_one_column(trials, lines)
    _check_unusual(lines)
    return _only(tried(NO_DELIMITER))


def header_width(trial: Trial) -> tuple[int, bool] | None:
    """The number of columns that first row and others have, and whether one of them ends in a needless delimiter."""
    first, width = trial.rows[0].cells, trial.width
    if len(first) == width:
        return width, False
    usual = [row.cells for row in trial.rows[1:] if len(row.cells) == width]
    if has_row_names(trial):
        return width, False
    if len(first) == width - 1 and len(first) > 0 and usual and not any(cells[-1].strip() for cells in usual):
        return width - 1, True
    if len(first) == width + 1 and not first[-1].strip():
        return width, True
    return None


def has_row_names(trial: Trial) -> bool:
    """Whether the rows begin with their numbers, for which the first row has no name, as R writes tables."""
    numbers = [row.cells[0] for row in trial.rows[1:] if len(row.cells) == trial.width]
    if len(trial.rows[0].cells) != trial.width - 1 or len(numbers) < 2 or not has_names(trial.rows[0].cells):
        return False
    return numbers == [str(number) for number in range(1, len(numbers) + 1)]


def _check_absent(delimiter: str, trials: dict[str, Trial]) -> None:
    """Refuse a delimiter that no row holds in a table that another one parts; without such, it is one column."""
    for mark, trial in trials.items():
        first = trial.rows[0].cells if trial.rows else []
        if _fits(trial) and has_names(first) and has_usual_name(first):
            raise UnclearError(
                f"no row holds the delimiter '{delimiter_words(delimiter)}', but '{delimiter_words(mark)}' parts all of them",
                "leave --csv-delimiter out",
            )


def _only(trials: list[Trial]) -> Trial:
    if len(trials) > 1:
        kinds = " and ".join(trial.dialect.words() for trial in trials)
        place = next(
            (row for row, other in zip(trials[0].rows, trials[-1].rows, strict=False) if row.cells != other.cells),
            trials[0].rows[-1],
        )
        raise UnclearError(
            f"line {place.number:,} can be read with {kinds}", "say with --csv-quoting which marks quote the cells"
        )
    return trials[0]


def _fits(trial: Trial) -> bool:
    """Whether the rows have the same number of cells, more than one, and the first row as many."""
    if not trial.is_sound or trial.width < 2 or trial.agreement < _ENOUGH:
        return False
    return header_width(trial) is not None


def _best(fitting: Sequence[str], trials: dict[str, Trial], usual: str) -> str:
    """The delimiter with the most columns of numbers and the clearest names, if one has."""
    if len(fitting) == 1:
        return fitting[0]

    def merit(mark: str) -> tuple[int, int]:
        rows = [row.cells for row in trials[mark].rows]
        columns = list(zip(*(cells for cells in rows[1:] or rows if len(cells) == trials[mark].width), strict=True))
        numbers = sum(sum(map(is_number, column)) >= _ENOUGH * len(column) for column in columns)
        return int(has_names(rows[0]) and has_usual_name(rows[0])), numbers

    merits = {mark: merit(mark) for mark in fitting}
    best = [mark for mark in fitting if merits[mark] == max(merits.values())]
    if len(best) > 1 and usual == "\t" in best:
        return "\t"
    if len(best) > 1:
        found = ", ".join(f"{delimiter_words(mark)} ({trials[mark].width} cells)" for mark in best)
        raise UnclearError(f"it is not clear what parts the cells: every row fits {found}", DELIMITER_HINT)
    return best[0]


def _is_broken_table(trial: Trial) -> bool:
    """Whether the first row names several columns, so that rows of another width are damaged."""
    first = trial.rows[0].cells
    fits = len(first) == trial.width or trial.broken is not None
    return len(first) > 1 and has_names(first) and (fits or has_usual_name(first))


def _check_prose(trial: Trial, options: ReadingOptions) -> None:
    """Refuse sentences with a comma in each, which look like rows of two cells."""
    mark = trial.dialect.delimiter
    rows = [row.cells for row in trial.rows]
    if (
        mark not in ",;"
        or options.csv_header == "present"
        or judge_header(rows[0], [row for row in rows[1:] if len(row) == len(rows[0])], options.text_column)
        == "present"
    ):
        return
    if _has_column_of_values(trial, trial.rows):
        return
    lines = [line for row in trial.rows for line in row.lines]
    if _is_punctuation(mark, lines):
        example = lines[0].strip()[:SHOWN]
        raise UnclearError(
            f"it is not clear whether '{mark}' parts cells or belongs to the texts ('{example}…')", _ONE_COLUMN_HINT
        )


def _is_punctuation(mark: str, lines: Sequence[str]) -> bool:
    """Whether a mark is nearly always followed by a blank, as in sentences."""
    marks = sum(line.count(mark) for line in lines)
    return mark in ",;" and sum(line.count(f"{mark} ") for line in lines) >= 0.8 * marks


def _has_column_of_values(trial: Trial, rows: Sequence[Record]) -> bool:
    """Whether a column holds numbers, ids or labels: no blank in them."""
    whole = [row.cells for row in rows if len(row.cells) == trial.width]
    return any(map(_are_values, zip(*whole, strict=True)))


def _are_values(column: Sequence[str]) -> bool:
    cells = [cell.strip() for cell in column]
    return bool(cells) and sum(len(cell) <= SHOWN and not any(map(str.isspace, cell)) for cell in cells) >= 0.9 * len(
        cells
    )


def _check_one_column(trials: dict[str, Trial], lines: Sequence[str]) -> None:
    """Refuse what rather is a table: a delimiter in every line, in rows that do not fit together."""
    filled = [line for line in lines if line.strip()]
    tabs = sum("\t" in line for line in filled)
    if "\t" in trials and len(filled) > tabs > max(2, len(filled) / 2) and any("\t" not in line for line in filled[1:]):
        alone = read_sample(lines, Dialect(NO_DELIMITER, "double"), complete=False)
        if not any(len(row.lines) > 1 for row in alone.rows):  # Code in quotes has tabs too.
            escapes = any(line.endswith("\\\n") for line in filled)
            raise UnclearError(
                "most lines hold tabs, but not all of them"
                + (": some end in a backslash, as MySQL writes line ends" * escapes),
                "export the table with quotes around its cells",
            )
    for mark, trial in trials.items():
        if len(filled) < 2 or not all(mark in line for line in filled[1:]):
            continue
        even = trial.is_sound and trial.agreement >= _ENOUGH and trial.width > 1
        parts = mark in "\t|" or (
            not _is_punctuation(mark, filled[1:]) and _has_column_of_values(trial, trial.rows[1:])
        )
        if mark in filled[0] or (even and parts and len(filled) > 2):
            cells = ", ".join(str(width) for width in sorted({len(row.cells) for row in trial.rows})[:5])
            raise UnclearError(
                f"every row holds '{delimiter_words(mark)}', but the rows do not have the same number of cells ({cells})",
                f"quote cells that hold it, or {_ONE_COLUMN_HINT if mark == ',' else DELIMITER_HINT}",
            )


def _check_unusual(lines: Sequence[str]) -> None:
    """Refuse rows that are parted by what parts cells seldom, and stands in all lines as often: `^`, `::`, Hive's SOH."""
    filled = [line for line in lines if line.strip()]
    if len(filled) < _FEWEST_PARTED:
        return
    for mark in _UNUSUAL_DELIMITERS:
        counts = {line.count(mark) for line in filled}
        if len(counts) == 1 and counts != {0}:
            shown = repr(mark).strip("'")
            hint = (
                f"say it with --csv-delimiter '{mark}'"
                if len(mark) == 1
                else "write the table with tabs between its cells"
            )
            if not mark.isprintable():
                hint = f"say it with --csv-delimiter $'{shown}' (bash)"
            raise UnclearError(
                f"every row holds '{shown}', as if it parted the cells",
                f"{hint}; --csv-delimiter tab reads each line as one text",
            )
