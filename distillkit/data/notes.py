"""What was noticed while reading a source: counted where it repeats, reported once where it does not."""

from __future__ import annotations

from collections import Counter


class ReadingNotes:
    """Remarks for the user, in the order in which they came up."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._remarks: dict[str, None] = {}

    def count(self, what: str, amount: int = 1) -> None:
        """`amount` more of `what` ("blank rows left out")."""
        self._counts[what] += amount

    def remark(self, remark: str) -> None:
        """Something to be reported once."""
        self._remarks[remark] = None

    def lines(self) -> list[str]:
        """All remarks, then all counts, a line each."""
        return [*self._remarks, *(f"{what}: {amount:,}" for what, amount in self._counts.items() if amount)]
