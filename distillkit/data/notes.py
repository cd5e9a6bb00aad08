"""What was noticed while reading a source: counted where it repeats, reported once where it does not.

Lines are for people; `record()` holds what `data/stats.json` and the input report are made from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any


class ReadingNotes:
    """Remarks for the user, in the order in which they came up."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._remarks: dict[str, None] = {}
        self._columns: dict[str, dict[str, str]] = {}
        self._read_as: dict[str, str] = {}
        self._bad_rows: dict[str, dict[str, Any]] = {}

    def count(self, what: str, amount: int = 1) -> None:
        """`amount` more of `what` ("blank rows left out")."""
        self._counts[what] += amount

    def remark(self, remark: str) -> None:
        """Something to be reported once."""
        self._remarks[remark] = None

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

    def read_as(self, name: str, how: str) -> None:
        """How a file was understood where that was not said: "CSV, delimiter |, no quotes, first row is a header"."""
        self._read_as[name] = how

    def bad_rows(self, name: str, amount: int, first: Sequence[str]) -> None:
        """Rows of a file that were left out because they hold no text that can be used, and the first of them."""
        self._bad_rows[name] = {"rows": amount, "first": list(first)}

    def record(self) -> dict[str, Any]:
        """All that was noted, for `data/stats.json`: "columns" and "read_as" by file, "bad_rows" by file, "counts"."""
        return {
            "columns": self._columns,
            "read_as": self._read_as,
            "bad_rows": self._bad_rows,
            "counts": {what: amount for what, amount in self._counts.items() if amount},
        }

    def lines(self) -> list[str]:
        """All remarks, then bad rows, then all counts, a line each."""
        bad: list[str] = []
        for name, note in self._bad_rows.items():
            rows, first = note["rows"], note["first"]
            named = f" ({'; '.join(first)}{'; …' if rows > len(first) else ''})" if first else ""
            bad.append(f"{name}: {rows:,} bad {'row' if rows == 1 else 'rows'} left out{named}")
        return [*self._remarks, *bad, *(f"{what}: {amount:,}" for what, amount in self._counts.items() if amount)]
