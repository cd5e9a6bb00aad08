"""Whether a student that got better on the texts says what its teacher would say, from the figures of validation.json.

Bits per byte are of the texts; agreement and divergence are of what the teacher predicts there. A student can gain in one and lose
in the other, where the texts are not what the teacher would write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Followed:
    """How closely a student follows its teacher, before and after.

    Attributes:
        agreed, agrees: share of tokens with the same first choice.
        kl_before, kl_after: Kullback-Leibler divergence from the teacher, nats for each token.
    """

    agreed: float
    agrees: float
    kl_before: float
    kl_after: float


def followed(verdict: str | None, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Followed | None:
    """The figures of a student that improved and moved away from its teacher in both; else None.

    Args:
        verdict, before, after: of validation.json.
    """
    if verdict != "improved" or not before or not after:
        return None
    found = [side.get(name) for name in ("teacher_agreement", "teacher_kl") for side in (before, after)]
    figures = [figure for figure in found if isinstance(figure, float)]
    if len(figures) != len(found):  # There was no teacher to compare with.
        return None
    both = Followed(*figures)
    return both if both.agrees < both.agreed and both.kl_after > both.kl_before else None
