"""Is the student really better? A paired bootstrap over documents (Efron & Tibshirani 1993), and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from distillkit.evaluation.bits_per_byte import Scores

Verdict = Literal["improved", "inconclusive", "worse"]

_DRAWS_AT_ONCE = 250


@dataclass(frozen=True)
class Interval:
    """A gain with its confidence interval; without bounds where there are too few documents to tell."""

    estimate: float
    low: float | None
    high: float | None


def paired_bootstrap(before: Scores, after: Scores, *, seed: int, draws: int = 5000, level: float = 0.95) -> Interval:
    """The gain in bits per byte (before - after), and the interval that resampled documents give it.

    Both models are scored on the same documents, which are drawn together: what is hard for both cancels out. Every
    draw is a ratio of sums, as the score itself is.

    Args:
        before, after: of the same documents.
        level: of the interval, by percentiles.

    Raises:
        ValueError: the documents are not the same.
    """
    if not np.array_equal(before.documents, after.documents):
        raise ValueError("the scores are of different documents")
    estimate = before.bits_per_byte - after.bits_per_byte
    count = len(before.documents)
    if count < 2:
        return Interval(estimate, None, None)
    generator = np.random.default_rng(seed)
    gains = []
    for start in range(0, draws, _DRAWS_AT_ONCE):
        drawn = generator.integers(0, count, size=(min(_DRAWS_AT_ONCE, draws - start), count))
        gains.append(_drawn_bits(before, drawn) - _drawn_bits(after, drawn))
    low, high = np.quantile(np.concatenate(gains), [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))


def _drawn_bits(scores: Scores, drawn: np.ndarray) -> np.ndarray:
    """[draws] bits per byte of resampled documents, [draws, D] indices."""
    sizes = scores.bytes[drawn].sum(1)
    return scores.nll[drawn].sum(1) / (np.log(2) * np.maximum(sizes, 1))


def gap_closed(teacher: float, before: float, after: float) -> float | None:
    """(before - after) / (before - teacher) in bits per byte; None where the student was not behind the teacher."""
    return (before - after) / (before - teacher) if before > teacher else None


def verdict(gain: Interval) -> Verdict:
    """ "improved" or "worse" only if the interval excludes zero."""
    if gain.low is not None and gain.low > 0:
        return "improved"
    if gain.high is not None and gain.high < 0:
        return "worse"
    return "inconclusive"
