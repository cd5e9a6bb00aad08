"""Which steps are on-policy, and which of those use texts of earlier ones: by the number of the step alone."""

from __future__ import annotations

from dataclasses import dataclass

_PARTS = 10**6


@dataclass(frozen=True)
class EvenShare:
    """A share of consecutive numbers, spread evenly: of the first n it has ⌊share · n⌋, however few they are. Drawn at random
    a short training would have another share than it was asked for.

    Attributes:
        share: from 0 to 1, to a millionth.
    """

    share: float

    def count(self, numbers: int) -> int:
        """How many of the first `numbers` belong to it."""
        return numbers * round(self.share * _PARTS) // _PARTS

    def has(self, number: int) -> bool:
        """Whether a number, counted from 0, belongs to it."""
        return self.count(number + 1) > self.count(number)


NO_SHARE = EvenShare(0.0)
