"""Lines of a delimited file -> records, by a given dialect, each with the lines that it stands on."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

# Parts nothing: a noncharacter, for files of one column whose texts hold commas.
DELIMITERS = (",", ";", "\t", "|")
NO_DELIMITER = "\uffff"
_DELIMITER_WORDS = {"\t": "tab", NO_DELIMITER: "none (one column)", " ": "space"}
_QUOTES = {"double": '"', "single": "'"}


@dataclass(frozen=True)
class Dialect:
    """How cells are parted and quoted.

    Attributes:
        delimiter: one character.
        quoting: which marks quote a cell.
        backslash: quotation marks inside cells stand behind a backslash instead of being doubled.
        skip_space: blanks behind a delimiter are no part of the cell.
    """

    delimiter: str
    quoting: Literal["double", "single", "none"]
    backslash: bool = False
    skip_space: bool = False

    @property
    def quote(self) -> str | None:
        """The quotation mark."""
        return _QUOTES.get(self.quoting)

    def words(self) -> str:
        """For people: "delimiter |, double quotes"."""
        quotes = "no quotes" if self.quoting == "none" else f"{self.quoting} quotes"
        escapes = " escaped with backslashes" if self.backslash else ""
        return f"delimiter {delimiter_words(self.delimiter)}, {quotes}{escapes}"


class Record(NamedTuple):
    """A record: its cells, and the lines that it stands on; `number` is that of the first one, from 1."""

    cells: list[str]
    number: int
    lines: list[str]


class BrokenRecordError(Exception):
    """A record that the dialect does not allow, or that the lines end in.

    Attributes:
        number: of its first line, from 1.
        lines: those read of it.
        reason: what is wrong.
        is_unfinished: the lines ended inside a quoted cell.
    """

    def __init__(self, number: int, lines: list[str], reason: str) -> None:
        super().__init__(reason)
        self.number = number
        self.lines = lines
        self.reason = reason
        self.is_unfinished = "end of data" in reason


def delimiter_words(delimiter: str) -> str:
    """A delimiter as it is shown: `tab`, `;`."""
    return _DELIMITER_WORDS.get(delimiter, delimiter)


def records(lines: Iterable[str], dialect: Dialect, first_number: int = 1) -> Iterator[Record]:
    """The records of `lines` (each with its LF), empty lines left out.

    Args:
        first_number: of the first line, from 1.

    Raises:
        BrokenRecordError: at the first record that is not of the dialect.
    """
    taken: list[str] = []
    number = first_number

    def watched() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            if dialect.backslash:
                _check_backslashes(line, dialect)
            yield line

    quote = dialect.quote
    reader = csv.reader(
        watched(),
        delimiter=dialect.delimiter,
        quotechar=quote,
        quoting=csv.QUOTE_NONE if quote is None else csv.QUOTE_MINIMAL,
        escapechar="\\" if dialect.backslash else None,
        doublequote=not dialect.backslash,
        skipinitialspace=dialect.skip_space,
        strict=True,
    )
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise BrokenRecordError(number, list(taken), str(error)) from error
        if cells is None:
            return
        if len(cells) > 1 and dialect.delimiter == NO_DELIMITER:
            cells = [NO_DELIMITER.join(cells)]
        if cells:
            yield Record(cells, number, list(taken))
        number += len(taken)
        taken.clear()


def _check_backslashes(line: str, dialect: Dialect) -> None:
    allowed = re.escape(f"{dialect.quote}\\{dialect.delimiter}\n")
    odd = re.search(rf"\\[^{allowed}]", re.sub(r"\\\\", "", line))
    if odd is not None:
        raise csv.Error(f"a backslash before {odd.group()[1]!r}, where others escape quotation marks")


def plain_cells(line: str, delimiter: str) -> list[str]:
    """The cells of a line as if nothing was quoted, with their quotation marks."""
    return line.rstrip("\n").split(delimiter)
