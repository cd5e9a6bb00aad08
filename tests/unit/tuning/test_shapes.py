"""The race of shapes, with models that are formulas."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from distillkit.errors import DistillkitError, UsageError
from distillkit.tuning.halving import Amount, Limits
from distillkit.tuning.journal import Journal
from distillkit.tuning.shapes import (
    CANDIDATES,
    FFN_SHARES,
    HEAD_SHARES,
    HIDDEN_SHARES,
    Shape,
    ShapeChoice,
    candidates,
    choose_shape,
)

DEPTH = 30
LIMITS = Limits(texts=400, epochs=1, step=4, least=32)


def parameters(shape: Shape) -> int | None:
    """A Llama of 30 layers with hidden size 576, nine heads, a feed-forward part of 1536 and 49 152 tokens."""
    hidden, heads, ffn = 576 * shape.hidden, round(9 * shape.heads), 1536 * shape.ffn
    if heads * 64 > hidden:
        return None  # In the place of what an architecture cannot do.
    return round(49152 * hidden + shape.layers * (4 * hidden * heads * 64 + 3 * hidden * ffn))


def naive(target: int) -> set[Shape]:
    """Of every width the deepest that fits, by trying all."""
    found = set()
    for ffn, heads, hidden in itertools.product(FFN_SHARES, HEAD_SHARES, HIDDEN_SHARES):
        fitting = [
            shape for n in range(1, DEPTH + 1)
            if (count := parameters(shape := Shape(n, ffn, heads, hidden))) is not None and count <= target
        ]  # fmt: skip
        found |= set(fitting[-1:])
    return found


@pytest.mark.parametrize("target", [35_000_000, 60_000_000, 80_000_000, 100_000_000])
def test_candidates_use_the_whole_budget(target: int) -> None:
    found = candidates(DEPTH, target, parameters)
    everything = naive(target)
    close = {shape for shape in everything if (parameters(shape) or 0) >= 0.85 * target}
    assert {candidate.shape for candidate in found} == close
    assert [candidate.parameters for candidate in found] == sorted((c.parameters for c in found), reverse=True)
    for candidate in found:
        assert candidate.parameters == parameters(candidate.shape) <= target  # type: ignore[operator]
        deeper = Shape(candidate.shape.layers + 1, candidate.shape.ffn, candidate.shape.heads, candidate.shape.hidden)
        assert candidate.shape.layers == DEPTH or parameters(deeper) > target  # type: ignore[operator]


def test_a_target_that_nothing_or_the_teacher_itself_meets() -> None:
    with pytest.raises(UsageError, match="the smallest student"):
        candidates(DEPTH, 1000, parameters)
    with pytest.raises(UsageError, match="the teacher itself"):
        candidates(DEPTH, 10**9, parameters)


def test_where_nothing_is_close_the_nearest_two_are_taken() -> None:
    def coarse(shape: Shape) -> int:
        return int(100 * shape.layers * shape.ffn * shape.heads * shape.hidden)

    found = candidates(2, 90, coarse)
    assert len(found) == 2
    assert found[0].parameters <= 90


def test_a_shape_is_named_as_students_are() -> None:
    assert Shape(12).reference == "teacher:12"
    assert Shape(12, ffn=0.75, heads=0.67, hidden=0.75).reference == "teacher:12,ffn=0.75,heads=0.67,hidden=0.75"


# --- the race ---------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """In the place of kill -9."""


class Race:
    """Shapes whose scores are formulas: deep ones start better, wide ones learn more."""

    def __init__(self, path: Path, target: int = 60_000_000) -> None:
        self.path, self.target = path, target
        self.found = candidates(DEPTH, target, parameters)
        self.calls: list[tuple[str, int]] = []
        self.said: list[str] = []

    def untrained(self, shape: Shape) -> float:
        return 5 - shape.layers / 20 + 2 * (1 - shape.hidden)

    def trained(self, shape: Shape, amount: Amount) -> float:
        return self.untrained(shape) - shape.ffn * math.log10(amount.passes)

    def run(self, die_at: int | None = None) -> ShapeChoice:
        def counted(score: float, shape: Shape, passes: int) -> float:
            if die_at is not None and len(self.calls) == die_at:
                raise Killed
            self.calls.append((shape.reference, passes))
            return score

        return choose_shape(
            self.found, self.target, LIMITS, Journal.open(self.path, "race"),
            lambda shape: counted(self.untrained(shape), shape, 0),
            lambda shape, amount: counted(self.trained(shape, amount), shape, amount.passes),
            self.said.append,
        )  # fmt: skip


def test_the_best_of_those_that_start_best_wins(tmp_path: Path) -> None:
    race = Race(tmp_path / "j")
    choice = race.run()
    assert len(race.found) > CANDIDATES
    begun = sorted(race.found, key=lambda c: race.untrained(c.shape))[:CANDIDATES]
    expected = min(begun, key=lambda c: race.trained(c.shape, LIMITS.most))
    assert choice.winner == expected
    # All are scored, six are trained, then three, then two, each time twice as long.
    lengths = [passes for _, passes in race.calls]
    assert [lengths.count(passes) for passes in (0, 100, 200, 400)] == [len(race.found), 6, 3, 2]
    assert len(set(race.calls)) == len(race.calls)


def test_the_choice_is_explained(tmp_path: Path) -> None:
    race = Race(tmp_path / "j")
    choice = race.run()
    rows = choice.rows()
    assert rows[0][0] == choice.winner.shape.reference
    assert len(rows) == len(race.found)
    assert [row[4] for row in rows] == sorted((row[4] for row in rows), reverse=True)
    assert rows[-1][3] == "–"
    words = choice.explanation()
    assert choice.winner.shape.reference in words
    assert f"{race.trained(choice.winner.shape, LIMITS.most):.4f}" in words
    assert rows[1][0] in words
    record = choice.record()
    assert record["student"] == choice.winner.shape.reference
    assert record["candidates"][0]["parameters"] == choice.winner.parameters <= race.target


@pytest.mark.parametrize("die_at", range(0, 20, 3))
def test_a_killed_race_ends_as_always(tmp_path: Path, die_at: int) -> None:
    undisturbed = Race(tmp_path / "undisturbed")
    expected = undisturbed.run()
    race = Race(tmp_path / "killed")
    with pytest.raises(Killed):
        race.run(die_at)
    assert race.run() == expected
    assert race.calls == undisturbed.calls


def test_a_single_candidate_is_not_trained(tmp_path: Path) -> None:
    race = Race(tmp_path / "j")
    race.found = race.found[:1]
    choice = race.run()
    assert choice.winner == race.found[0]
    assert [passes for _, passes in race.calls] == [0]
    assert "no other shape" in choice.explanation()


def test_what_diverges_drops_out(tmp_path: Path) -> None:
    race = Race(tmp_path / "j")
    best = race.run().winner.shape
    again = Race(tmp_path / "k")
    finite: Any = again.trained
    again.trained = lambda shape, amount: math.nan if shape == best else finite(shape, amount)  # type: ignore[method-assign]
    choice = again.run()
    assert choice.winner.shape != best
    assert choice.rows()[-1][0] == best.reference


def test_where_everything_diverges_it_is_said(tmp_path: Path) -> None:
    race = Race(tmp_path / "j")
    race.trained = lambda shape, amount: math.inf  # type: ignore[method-assign]
    race.untrained = lambda shape: math.inf  # type: ignore[method-assign]
    with pytest.raises(DistillkitError, match="no shape"):
        race.run()
