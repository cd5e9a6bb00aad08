"""What was noticed while reading a source: counted where it repeats, reported once where it does not.

Lines are for people; `record()` holds what `data/stats.json` and the input report are made from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from distillkit.words import reworded, say

# So many files are named in a remark of which they are not the subject, and in one that is about them.
_NAMED, _FILES_NAMED = 2, 3


class ReadingNotes:
    """Remarks for the user, in the order in which they came up."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._files: Counter[str] = Counter()
        # With the files that it is true of; none for a remark on the whole source.
        self._remarks: dict[str, list[str]] = {}
        self._changes: Counter[str] = Counter()
        self._columns: dict[str, dict[str, str]] = {}
        self._formats: dict[str, dict[str, Any]] = {}
        self._read_as: dict[str, str] = {}
        self._bad_rows: dict[str, dict[str, Any]] = {}

    def count(self, what: str, amount: int = 1) -> None:
        """`amount` more of `what` ("blank rows left out")."""
        self._counts[what] += amount

    def changed(self, what: str) -> None:
        """One more of what was read in another way than it stands there ("turns joined …")."""
        self._changes[what] += 1

    def remark(self, remark: str) -> None:
        """Something to be reported once."""
        self._remarks.setdefault(remark, [])

    def remark_of(self, name: str, remark: str) -> None:
        """Something that may be true of many files: it is reported once, with the first of them."""
        self._remarks.setdefault(remark, []).append(name)

    def left_out(self, why: str, names: Sequence[str]) -> None:
        """Files that are there and are not read; `why`: "no data", "in no split that is used"."""
        more = f" and {len(names) - _FILES_NAMED:,} more" if len(names) > _FILES_NAMED else ""
        self.remark(f"{why}, left out: {', '.join(names[:_FILES_NAMED])}{more}")
        self._files[why] += len(names)

    def chose_column(self, name: str, column: str, why: str) -> None:
        """The column that the texts of a file or data set were read from.

        Args:
            name: the file.
            column: its name there.
            why: "named by --text-column", "called text", "the only one that is prose".
        """
        self._columns[name] = {"column": column, "why": why}

    def take_column(self, name: str) -> dict[str, str] | None:
        """The column of a file, "column" and "why", which is no longer noted for the file: it is that of a whole set."""
        return self._columns.pop(name, None)

    def chose_format(self, name: str, record: dict[str, Any]) -> None:
        """As what the conversations of a file or data set were read.

        Args:
            name: the file.
            record: "format" ("messages"), "columns" (what it stands for -> its name there), "why".
        """
        self._formats[name] = record

    def take_format(self, name: str) -> dict[str, Any] | None:
        """The format of a file, which is no longer noted for the file: it is that of a whole set."""
        return self._formats.pop(name, None)

    def told_formats(self) -> str:
        """The formats of conversations, for people: "alpaca (columns instruction, output; found by their names)"."""
        return by_file({name: told_format(record) for name, record in self._formats.items()})

    def read_as(self, name: str, how: str) -> None:
        """How a file was understood where that was not said: "CSV, delimiter |, no quotes, first row is a header"."""
        self._read_as[name] = how

    def bad_rows(self, name: str, amount: int, first: Sequence[str]) -> None:
        """Rows of a file that were left out because they hold no text that can be used, and the first of them."""
        self._bad_rows[name] = {"rows": amount, "first": list(first)}

    def record(self) -> dict[str, Any]:
        """All that was noted, for `data/stats.json`: "remarks", "columns", "formats" (of conversations) and "read_as" by
        file, "bad_rows" by file, "files_left_out" by why, "counts"."""
        return {
            "remarks": self._remark_lines(),
            "columns": self._columns,
            "formats": self._formats,
            "read_as": self._read_as,
            "bad_rows": self._bad_rows,
            "files_left_out": dict(self._files),
            "counts": {what: amount for what, amount in self._counts.items() if amount},
        }

    def lines(self) -> list[str]:
        """All remarks, then bad rows, then all counts, a line each."""
        bad: list[str] = []
        for name, note in self._bad_rows.items():
            rows, first = note["rows"], note["first"]
            named = f" ({'; '.join(first)}{'; …' if rows > len(first) else ''})" if first else ""
            bad.append(f"{name}: {rows:,} bad {'row' if rows == 1 else 'rows'} left out{named}")
        return [
            *self._remark_lines(),
            *bad,
            *(f"{what}: {amount:,}" for what, amount in self._counts.items() if amount),
        ]

    def _remark_lines(self) -> list[str]:
        remarks = [f"{some_of(names)}: {remark}" if names else remark for remark, names in self._remarks.items()]
        return [*remarks, *(f"{what}: {amount:,}" for what, amount in self._changes.items())]


def some_of(names: Sequence[str], lang: str = "en") -> str:
    """The first of some files, and how many more there are."""
    more = len(names) - _NAMED
    shown = ", ".join(names[:_NAMED])
    return say(lang, "input.and_more_files", names=shown, count=more) if more > 0 else shown


def told_format(record: Mapping[str, Any], lang: str = "en") -> str:
    """A format of conversations for people, with the columns that are read: `record` as in `ReadingNotes.chose_format`."""
    names = list(dict.fromkeys(record["columns"].values()))
    key = "input.of_column" if len(names) == 1 else "input.of_columns"
    why = reworded(lang, record["why"], "why")
    return say(lang, key, format=record["format"], names=", ".join(names), why=why)


def by_file(found: Mapping[str, str], lang: str = "en") -> str:
    """What was found of files: once where it is the same of all of them, else by file."""
    files: dict[str, list[str]] = {}
    for name, what in found.items():
        files.setdefault(what, []).append(name)
    if len(files) <= 1:
        return next(iter(files), "")
    told = [f"{some_of(names, lang)}: {what}" for what, names in list(files.items())[:_NAMED]]
    if others := sum(len(names) for names in list(files.values())[_NAMED:]):
        told.append(say(lang, "input.files_otherwise", count=others))
    return "; ".join(told)
