"""How much of the teacher's probability the student has tokens for."""

from __future__ import annotations

from torch import Tensor

_MOST_PENDING = 4096


class MappedMass:
    """A running sum over rows of the teacher's probability that had a student token, at most 1 per row.

    What a step adds stays on its device until somebody reads the sum, so that no step waits for it.

    Args:
        mapped, rows: where the sums begin.
    """

    def __init__(self, mapped: float = 0.0, rows: int = 0) -> None:
        self._mapped = mapped
        self.rows = rows
        self._pending: list[Tensor] = []

    def add(self, mapped: Tensor, rows: int) -> None:
        """Add a sum over `rows` rows.

        Args:
            mapped: [] without a graph.
        """
        self._pending.append(mapped)
        self.rows += rows
        if len(self._pending) > _MOST_PENDING:
            self._settle()

    def take(self, other: MappedMass) -> None:
        """Add what another sum has, which begins anew."""
        self._mapped += other._mapped
        self._pending += other._pending
        self.rows += other.rows
        other.restore(0.0, 0)

    @property
    def mapped(self) -> float:
        """The sum so far; reading it waits for the device."""
        self._settle()
        return self._mapped

    def restore(self, mapped: float, rows: int) -> None:
        """Go back to sums that were noted earlier."""
        self._mapped, self.rows, self._pending = mapped, rows, []

    def _settle(self) -> None:
        for value in self._pending:
            self._mapped += float(value)
        self._pending = []
