"""How much of the teacher's probability the student has tokens for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class MappedMass:
    """Σ of the teacher's probability that had a student token, and the rows summed over."""

    mapped: float = 0.0
    rows: int = 0
