"""Whether a student improved: a paired bootstrap over documents, and the verdict drawn from its interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from distillkit.evaluation.bits_per_byte import Scores

Verdict = Literal["improved", "inconclusive", "worse"]

_COUNTS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A gain and how sure it is.

    Attributes:
        estimate: the gain on all documents, bits per byte.
        low, high: the interval; None where there are too few documents for one.
        level: how often such intervals hold the true gain.
        documents: documents that were drawn from.
    """

    estimate: float
    low: float | None
    high: float | None
    level: float
    documents: int


def fewest_documents(level: float) -> int:
    """With fewer documents no interval of this level exists.

    A student that is not better in truth wins, or loses, on each of n documents by chance with probability 2·2⁻ⁿ;
    until that is below 1 - level (6 documents for 95 %), no outcome whatever would be evidence.
    """
    return math.ceil(1 - math.log2(1 - level))


def paired_bootstrap(before: Scores, after: Scores, *, seed: int, samples: int = 5000, level: float = 0.95) -> Interval:
    """The interval of `before - after` in bits per byte; positive means that the student gained.

    Each sample draws as many documents as there are, with replacement, the same ones for both sides, and takes the
    difference of the ratios of sums, as on the whole set. The interval is between percentiles, which are moved
    outwards for few documents as in Hesterberg (2015, arXiv 1411.5279, "expanded percentile interval"). In simulations
    with documents of very different sizes, 20 of them, 95 % intervals then held the truth in 93 % of cases, plain
    percentiles in 90 %.

    Raises:
        ValueError: the two sides are of different documents, or `level` is not between 0 and 1.
        DistillkitError: not one byte was scored.
    """
    if not np.array_equal(before.documents, after.documents):
        raise ValueError("before and after are scores of different documents")
    if not 0 < level < 1:
        raise ValueError(f"a level of {level}")
    estimate = before.bits_per_byte - after.bits_per_byte
    used = (before.bytes > 0) & (after.bytes > 0)
    count = int(used.sum())
    if count < fewest_documents(level):
        return Interval(estimate, None, None, level, count)
    columns = np.stack([before.nll, before.bytes, after.nll, after.bytes], axis=1)[used]

    def gains(sums: np.ndarray) -> np.ndarray:
        return (sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]) / math.log(2)

    return Interval(estimate, *_between(columns, gains, seed=seed, samples=samples, level=level), level, count)


def bootstrap(scores: Scores, *, seed: int, samples: int = 5000, level: float = 0.95) -> Interval:
    """The interval of a model's own bits per byte, over the documents as in `paired_bootstrap`.

    It says how far the figure depends on which texts were held out. Two models are compared by the interval of their
    difference, never by whether these overlap.

    Raises:
        DistillkitError: not one byte was scored.
    """
    used = scores.bytes > 0
    count = int(used.sum())
    if count < fewest_documents(level):
        return Interval(scores.bits_per_byte, None, None, level, count)
    columns = np.stack([scores.nll, scores.bytes], axis=1)[used]
    ends = _between(
        columns, lambda sums: sums[:, 0] / sums[:, 1] / math.log(2), seed=seed, samples=samples, level=level
    )
    return Interval(scores.bits_per_byte, *ends, level, count)


def _between(
    columns: np.ndarray, figure: Callable[[np.ndarray], np.ndarray], *, seed: int, samples: int, level: float
) -> tuple[float, float]:
    """Between which values a figure lies, over samples of the documents.

    Args:
        columns: [documents, C] what is summed of each document.
        figure: of sums [samples, C] the figure [samples].
    """
    count = len(columns)
    generator = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    remaining = samples
    while remaining:
        drawn = min(remaining, max(1, _COUNTS_AT_ONCE // count))
        # How often each document is drawn suffices: the sums are then one matrix product.
        times = generator.multinomial(count, np.full(count, 1 / count), size=drawn)
        found.append(figure(times @ columns))
        remaining -= drawn
    tail = _expanded_tail((1 - level) / 2, count)
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    return float(low), float(high)


def _expanded_tail(tail: float, count: int) -> float:
    """Φ(-√(n/(n-1)) · t): undoes that a bootstrap of n documents is too narrow by √((n-1)/n) and ignores Student's t."""
    freedom = count - 1
    z = -NormalDist().inv_cdf(tail)
    # Student's quantile from the normal one (Abramowitz & Stegun 26.7.5): to 0.003 at the fewest documents.
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    return NormalDist().cdf(-math.sqrt(count / freedom) * t)


def gap_closed(teacher: float, before: float, after: float) -> float | None:
    """(before - after) / (before - teacher), all in bits per byte: 1 means as good as the teacher.

    None where the teacher is no better than the student before: there is no gap.
    """
    gap = before - teacher
    return (before - after) / gap if math.isfinite(gap) and gap > 0 else None


def verdict(interval: Interval) -> Verdict:
    """The verdict of an interval: "improved" or "worse" only if it excludes zero."""
    if interval.low is not None and interval.low > 0:
        return "improved"
    if interval.high is not None and interval.high < 0:
        return "worse"
    return "inconclusive"
