"""A race of shapes: which of the students of one size that can be cut from a teacher learns best.

Depth and width can be had for the same number of parameters in many ways. Each shape that fills the budget is scored as it is
cut, before any training; the best few are trained for a short time, the best half of them anew for twice as long, and so on,
by successive halving as in `tune`. (Minitron, arXiv 2407.14679, ranks its candidates so: the order before training is not the
order after it.)

Nothing here knows models: what a shape counts, scores and learns is asked of functions.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from distillkit.errors import DistillkitError, UsageError
from distillkit.tuning.halving import Amount, Limits, rungs_up_to, survivors
from distillkit.tuning.journal import Journal, Rung, Trial
from distillkit.tuning.search import amount_words, finish_rung, score_words

FFN_SHARES = (1.0, 0.75, 0.5)
HEAD_SHARES = (1.0, 0.67)
HIDDEN_SHARES = (1.0, 0.75)
# Of the wanted parameters; a shape with fewer is left out where enough others have more.
CLOSE = 0.85
CANDIDATES = 6
# Each rung trains twice as long as the one before, and keeps half.
GROWTH = 2.0
_RUNGS = 3
# The score of a shape as it is cut, in the journal: a trial without texts.
UNTRAINED = Amount(0, 0)


@dataclass(frozen=True)
class Shape:
    """How much of a teacher a student keeps.

    Attributes:
        layers: how many.
        ffn, heads, hidden: shares of the feed-forward neurons, of the key/value groups with their heads, and of the hidden
            size; 1 keeps all.
    """

    layers: int
    ffn: float = 1.0
    heads: float = 1.0
    hidden: float = 1.0

    @property
    def reference(self) -> str:
        """As a student is named: `teacher:12,ffn=0.75`."""
        widths = (("ffn", self.ffn), ("heads", self.heads), ("hidden", self.hidden))
        return ",".join([f"teacher:{self.layers}", *(f"{name}={share:g}" for name, share in widths if share != 1)])

    def as_settings(self) -> dict[str, Any]:
        """For the journal."""
        return {"layers": self.layers, "ffn": self.ffn, "heads": self.heads, "hidden": self.hidden}


@dataclass(frozen=True)
class Candidate:
    """A shape and how many parameters it has."""

    shape: Shape
    parameters: int


@dataclass(frozen=True)
class Standing:
    """How a shape came off.

    Attributes:
        untrained: bits per byte as it is cut.
        trained: bits per byte after `texts` texts; None where it was left out before training.
    """

    candidate: Candidate
    untrained: float
    trained: float | None = None
    texts: int = 0


@dataclass(frozen=True)
class ShapeChoice:
    """The winner, and how all came off, the best first."""

    winner: Candidate
    standings: tuple[Standing, ...]
    target: int

    def rows(self) -> list[tuple[str, int, str, str, int]]:
        """(student, parameters, bits per byte as cut, bits per byte trained, texts), the best first."""
        return [
            (
                standing.candidate.shape.reference,
                standing.candidate.parameters,
                _number(standing.untrained),
                "–" if standing.trained is None else _number(standing.trained),
                standing.texts,
            )
            for standing in self.standings
        ]

    def record(self) -> dict[str, Any]:
        """For the manifest: the winner, and the table."""
        columns = ("student", "parameters", "bits_per_byte_as_cut", "bits_per_byte_trained", "texts")
        return {
            "student": self.winner.shape.reference,
            "parameters": self.winner.parameters,
            "target_parameters": self.target,
            "candidates": [dict(zip(columns, row, strict=True)) for row in self.rows()],
        }

    def explanation(self) -> str:
        """Why it is this one, as a sentence."""
        first, *others = self.standings
        won = f"{first.candidate.shape.reference} has {first.candidate.parameters:,} of {self.target:,} parameters"
        if first.trained is None:
            return f"{won}; no other shape comes as close"
        score = f"{first.trained:.4f} bits per byte after {first.texts:,} texts"
        runner_up = next((other for other in others if other.texts == first.texts and other.trained is not None), None)
        if runner_up is None:
            return f"{won} and {score}"
        second = f"{runner_up.candidate.shape.reference} {_number(runner_up.trained)}"
        cut = min(self.standings, key=lambda standing: standing.untrained)
        favourite = "" if cut == first else f"; as cut, {cut.candidate.shape.reference} was ahead"
        return f"{won} and {score}, {second}{favourite}"


def candidates(depth: int, target: int, parameters: Callable[[Shape], int | None]) -> list[Candidate]:
    """The shapes that use the whole budget: for every width the most layers that it allows.

    Args:
        depth: layers of the teacher.
        target: parameters that the student may have.
        parameters: of a shape; None for one that the teacher cannot be cut to. More layers never have fewer.

    Returns:
        Those with at least `CLOSE` of the target, or the nearest where there are fewer than two, the largest first.

    Raises:
        UsageError: even the smallest shape is larger; or the teacher itself is not.
    """
    whole = parameters(Shape(depth))
    if whole is not None and whole <= target:
        raise UsageError(
            f"--target-parameters {target:,}: the teacher itself has {whole:,}", hint="name a smaller number"
        )
    found: list[Candidate] = []
    smallest = math.inf
    for ffn, heads, hidden in itertools.product(FFN_SHARES, HEAD_SHARES, HIDDEN_SHARES):
        for layers in range(depth, 0, -1):
            shape = Shape(layers, ffn, heads, hidden)
            count = parameters(shape)
            if count is None:
                continue
            smallest = min(smallest, count)
            if count <= target:
                found.append(Candidate(shape, count))
                break
    if not found:
        least = f"{smallest:,}" if math.isfinite(smallest) else "no number"
        raise UsageError(
            f"--target-parameters {target:,}: the smallest student of this teacher has {least} of parameters",
            hint="name a larger number, or a smaller teacher",
        )
    ranked = sorted(found, key=lambda candidate: -candidate.parameters)
    close = [candidate for candidate in ranked if candidate.parameters >= CLOSE * target]
    return close if len(close) >= 2 else ranked[:2]


def choose_shape(
    found: Sequence[Candidate],
    target: int,
    limits: Limits,
    journal: Journal,
    score: Callable[[Shape], float],
    train: Callable[[Shape, Amount], float],
    tell: Callable[[str], None],
) -> ShapeChoice:
    """Race the candidates; what the journal knows already is not done again.

    Args:
        found: of `candidates`.
        target: parameters that were asked for.
        limits: of the training texts.
        journal: of this race.
        score: a shape to its bits per byte as it is cut, on the validation part; infinity where it has none.
        train: a shape, cut anew and trained on an amount, to its bits per byte; infinity where it diverges.
        tell: shows a line of what happens.

    Raises:
        Interrupted: a signal arrived; what is finished is in the journal.
        DistillkitError: every shape diverged, or something cannot be written.
    """
    by_key = {candidate.shape.reference: candidate for candidate in found}
    untrained = {name: _scored(candidate.shape, journal, score) for name, candidate in by_key.items()}
    standings = {name: Standing(candidate, untrained[name]) for name, candidate in by_key.items()}
    going = survivors(list(by_key), lambda name: untrained[name], CANDIDATES)
    if len(going) > 1:
        amounts = rungs_up_to(limits.most, _RUNGS, limits, GROWTH)
        for number, amount in enumerate(amounts):
            tell(f"rung {number + 1}: {len(going)} shapes, {amount_words(amount)}")
            trials = _rung(number, amount, [by_key[name].shape for name in going], journal, train, tell)
            for name in going:
                standings[name] = Standing(by_key[name], untrained[name], trials[name], amount.passes)
            last = number + 1 == len(amounts)
            kept = survivors(going, lambda name, trials=trials: trials[name], len(going) if last else _half(len(going)))
            if len(kept) <= 1 or last:
                break
            going = kept
    ranked = sorted(standings.values(), key=_rank)
    if _rank(ranked[0])[0]:
        raise DistillkitError(
            "no shape could be trained: the score of every one became infinite or not a number",
            hint="lower --learning-rate, or use --precision fp32",
        )
    return ShapeChoice(ranked[0].candidate, tuple(ranked), target)


def _half(count: int) -> int:
    return max(2, math.ceil(count / 2))


def _rank(standing: Standing) -> tuple[bool, int, float, float]:
    """Who has diverged comes last, who trained longer before who trained less, then the better score."""
    trained = standing.untrained if standing.trained is None else standing.trained
    return (not math.isfinite(trained), -standing.texts, trained, standing.untrained)


def _scored(shape: Shape, journal: Journal, score: Callable[[Shape], float]) -> float:
    known = journal.trial(shape.as_settings(), UNTRAINED)
    if known is None:
        known = _timed(shape, UNTRAINED, lambda: score(shape))
        journal.add_trial(known)
    return known.score


def _rung(
    number: int,
    amount: Amount,
    shapes: Sequence[Shape],
    journal: Journal,
    train: Callable[[Shape, Amount], float],
    tell: Callable[[str], None],
) -> dict[str, float]:
    """Train the shapes of a rung; their scores by name."""
    rung = Rung(0, number, amount, tuple(shape.as_settings() for shape in shapes))
    if number >= len(journal.rungs):
        journal.begin_rung(rung)

    def run_trial(settings: dict[str, Any], amount: Amount, label: str) -> Trial:
        shape = Shape(**settings)
        return _timed(shape, amount, lambda: train(shape, amount))

    def told(trial: Trial) -> None:
        tell(f"{Shape(**trial.settings).reference}: {score_words(trial)}")

    finish_rung(rung, journal, run_trial, lambda: True, told)
    return {shape.reference: journal.score(shape.as_settings(), amount) for shape in shapes}


def _timed(shape: Shape, amount: Amount, compute: Callable[[], float]) -> Trial:
    began = time.monotonic()
    value = compute()
    diverged = None if math.isfinite(value) else f"the score became {value}"
    score = value if diverged is None else math.inf
    return Trial(shape.as_settings(), amount, score, diverged, seconds=time.monotonic() - began)


def _number(score: float | None) -> str:
    return f"{score:.4f}" if score is not None and math.isfinite(score) else "diverged"
