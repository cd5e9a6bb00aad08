"""The interval must hold the truth as often as it says, and say nothing where nothing can be said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distillkit.evaluation.bits_per_byte import Scores
from distillkit.evaluation.bootstrap import (
    Interval,
    bootstrap,
    fewest_documents,
    gap_closed,
    paired_bootstrap,
    verdict,
)

LN2 = math.log(2)


def scores(bits_per_byte: np.ndarray, sizes: np.ndarray) -> Scores:
    return Scores(np.arange(len(sizes)), bits_per_byte * sizes * LN2, sizes, sizes // 4)


def draw(generator: np.random.Generator, documents: int, gain: float, spread: float) -> tuple[Scores, Scores]:
    """Documents of very different sizes and difficulty; the gain varies between them, with mean `gain`."""
    sizes = generator.lognormal(7, 0.8, documents).astype(np.int64) + 1
    before = generator.normal(1.5, 0.4, documents)
    gains = gain + spread * ((generator.gamma(4, 1, documents) - 4) / 2)
    return scores(before, sizes), scores(before - gains, sizes)


def test_the_estimate_is_the_difference_of_ratios_of_sums() -> None:
    before, after = draw(np.random.default_rng(1), 40, 0.02, 0.05)
    interval = paired_bootstrap(before, after, seed=0)
    expected = before.nll.sum() / before.bytes.sum() / LN2 - after.nll.sum() / after.bytes.sum() / LN2
    assert interval.estimate == pytest.approx(expected, rel=1e-12)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low < interval.estimate < interval.high


def test_equals_a_bootstrap_that_draws_documents_one_by_one() -> None:
    before, after = draw(np.random.default_rng(2), 400, 0.02, 0.05)
    generator = np.random.default_rng(9)
    gains = []
    for _ in range(3000):
        drawn = generator.integers(0, 400, 400)
        sides = [side.nll[drawn].sum() / side.bytes[drawn].sum() / LN2 for side in (before, after)]
        gains.append(sides[0] - sides[1])
    low, high = np.quantile(gains, [0.025, 0.975])
    interval = paired_bootstrap(before, after, seed=3)
    # With 400 documents the correction for few of them is a hair.
    assert interval.low == pytest.approx(low, abs=0.06 * (high - low))
    assert interval.high == pytest.approx(high, abs=0.06 * (high - low))


@pytest.mark.parametrize(("documents", "least"), [(12, 0.90), (50, 0.91)])
def test_coverage(documents: int, least: float) -> None:
    """500 simulated evaluations with a skewed gain. Plain percentiles would hold the truth in 0.88 of 12 documents."""
    generator = np.random.default_rng(7)
    hits, false_alarms = 0, 0
    for trial in range(500):
        before, after = draw(generator, documents, 0.02, 0.03)
        interval = paired_bootstrap(before, after, seed=trial, samples=1000)
        assert interval.low is not None
        assert interval.high is not None
        hits += interval.low <= 0.02 <= interval.high
        false_alarms += (
            verdict(paired_bootstrap(*draw(generator, documents, 0.0, 0.03), seed=trial, samples=1000)) == "improved"
        )
    assert least <= hits / 500 <= 0.985
    assert false_alarms / 500 <= 0.05


def test_verdicts() -> None:
    generator = np.random.default_rng(5)
    assert verdict(paired_bootstrap(*draw(generator, 60, 0.1, 0.05), seed=0)) == "improved"
    assert verdict(paired_bootstrap(*draw(generator, 60, -0.1, 0.05), seed=0)) == "worse"
    assert verdict(paired_bootstrap(*draw(generator, 60, 0.0, 0.05), seed=0)) == "inconclusive"
    before, _ = draw(generator, 60, 0.0, 0.05)
    unchanged = paired_bootstrap(before, before, seed=0)
    assert (unchanged.estimate, unchanged.low, unchanged.high) == (0, 0, 0)
    assert verdict(unchanged) == "inconclusive"
    assert verdict(Interval(0.1, 0.0, 0.2, 0.95, 9)) == "inconclusive"


def test_the_seed_decides() -> None:
    before, after = draw(np.random.default_rng(1), 30, 0.02, 0.05)
    assert paired_bootstrap(before, after, seed=4) == paired_bootstrap(before, after, seed=4)
    assert paired_bootstrap(before, after, seed=4) != paired_bootstrap(before, after, seed=5)


def test_a_higher_level_is_wider() -> None:
    before, after = draw(np.random.default_rng(1), 30, 0.02, 0.05)
    narrow, wide = (paired_bootstrap(before, after, seed=4, level=level) for level in (0.8, 0.99))
    assert narrow.low is not None
    assert wide.low is not None
    assert wide.low < narrow.low


@pytest.mark.parametrize("documents", [1, 5])
def test_too_few_documents_give_no_interval(documents: int) -> None:
    before, after = draw(np.random.default_rng(1), documents, 0.5, 0.01)
    interval = paired_bootstrap(before, after, seed=0)
    assert interval.estimate > 0.4
    assert (interval.low, interval.high, interval.documents) == (None, None, documents)
    assert verdict(interval) == "inconclusive"


def test_how_many_documents_a_level_needs() -> None:
    for level in (0.8, 0.9, 0.95, 0.99):
        fewest = fewest_documents(level)
        assert 2 * 0.5**fewest <= 1 - level + 1e-12 < 2 * 0.5 ** (fewest - 1)
    assert fewest_documents(0.95) == 6


def test_documents_without_bytes_are_not_drawn() -> None:
    before, after = draw(np.random.default_rng(1), 8, 0.5, 0.01)
    for side in (before, after):
        side.bytes[:4] = side.nll[:4] = 0
    interval = paired_bootstrap(before, after, seed=0)
    assert (interval.low, interval.documents) == (None, 4)


def test_different_documents_are_refused() -> None:
    generator = np.random.default_rng(1)
    with pytest.raises(ValueError, match="different documents"):
        paired_bootstrap(draw(generator, 8, 0, 1)[0], draw(generator, 9, 0, 1)[0], seed=0)


def test_gap_closed() -> None:
    assert gap_closed(1.0, 2.0, 1.25) == pytest.approx(0.75)
    assert gap_closed(1.0, 2.0, 2.5) == pytest.approx(-0.5)
    assert gap_closed(1.0, 2.0, 0.9) == pytest.approx(1.1)
    assert gap_closed(2.0, 2.0, 1.0) is None
    assert gap_closed(2.5, 2.0, 1.0) is None


def test_the_interval_of_one_model_is_that_of_its_gain_over_nothing() -> None:
    """Against a model that loses no bit, the gain is the score itself: every draw is the same."""
    before, _ = draw(np.random.default_rng(4), 30, 0.02, 0.05)
    nothing = Scores(before.documents, np.zeros(30), before.bytes, before.tokens)
    assert bootstrap(before, seed=3) == paired_bootstrap(before, nothing, seed=3)
    few = Scores(before.documents[:5], before.nll[:5], before.bytes[:5], before.tokens[:5])
    assert bootstrap(few, seed=3).low is None
