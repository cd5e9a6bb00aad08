"""How much of the teacher's probability the student has tokens for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class MappedMass:
    """A running sum over rows.

    Attributes:
        mapped: Σ of the teacher's probability that had a student token, at most 1 per row.
        rows: the rows summed over.
    """

    mapped: float = 0.0
    rows: int = 0
