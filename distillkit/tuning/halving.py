"""Successive halving: many configurations are trained for a short time, the best of them anew for a longer one, and so on.

(Jamieson & Talwalkar 2016, arXiv 1502.07943; several brackets after one another as in Hyperband, Li et al. 2018, arXiv
1603.06560.) Everything here is computed from numbers alone: what is left of the budget, what trials have cost so far.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

# Configurations of the rungs of a bracket, from the richest; which one is taken depends on the budget.
SCHEMES: tuple[tuple[int, ...], ...] = ((24, 8, 4), (16, 6, 2), (12, 4, 2), (8, 3), (6, 2), (4, 2))
# Those whose longest trials may be shorter than the whole training, where the time does not suffice for that.
SHORTENED = SCHEMES[2:]
GROWTH = 3.0
# How much longer the trials of the next rung may be, from the best to the least that is worth it.
GROWTHS = (4.0, 3.0, 2.5, 2.0, 1.5)
# A rung that comes this near to the whole training is made the whole training.
NEARLY_ALL = 0.8
# Without a number of trials the search ends after so many brackets: the validation texts tell no more.
MOST_BRACKETS = 3
LEAST_STEPS = 8


@dataclass(frozen=True)
class Amount:
    """How much a trial trains: on the first `texts` training texts, `epochs` times."""

    texts: int
    epochs: int = 1

    @property
    def passes(self) -> int:
        """Texts that the student reads, repetitions counted."""
        return self.texts * self.epochs


@dataclass(frozen=True)
class Limits:
    """Which amounts there are.

    Attributes:
        texts: of the training part.
        epochs: of the whole training.
        step: texts of an optimizer step.
        least: fewest texts of a trial.
    """

    texts: int
    epochs: int
    step: int = 1
    least: int = 1

    @property
    def most(self) -> Amount:
        """The whole training."""
        return Amount(self.texts, self.epochs)

    def amount(self, passes: float) -> Amount:
        """The amount that is next to `passes`: whole steps, then whole epochs, never more than the whole training."""
        if passes >= NEARLY_ALL * self.most.passes:
            return self.most
        if passes >= self.texts:
            return Amount(self.texts, max(1, int(passes / self.texts)))
        texts = max(self.least, math.ceil(passes / self.step) * self.step)
        return Amount(self.texts if texts >= NEARLY_ALL * self.texts else texts, 1)


@dataclass(frozen=True)
class Cost:
    """What a trial costs: `fixed` seconds to load and to score a student, `per_text` for each text that it reads."""

    fixed: float
    per_text: float

    @classmethod
    def measured(cls, trials: Iterable[tuple[Amount, float, float]]) -> Cost | None:
        """From trials that came to their end; None where there is none.

        Args:
            trials: (amount, seconds of the training, other seconds that every trial takes).
        """
        measured = list(trials)
        if not measured:
            return None
        longest = max(amount.passes for amount, *_ in measured)
        # Of the longest ones: the first steps of a training are slower than the others.
        rates = [training / amount.passes for amount, training, _ in measured if amount.passes == longest]
        return cls(statistics.median(other for *_, other in measured), statistics.median(rates))

    def seconds(self, amount: Amount) -> float:
        return self.fixed + self.per_text * amount.passes


@dataclass(frozen=True)
class Left:
    """What is left of the budget; None: that is not limited."""

    seconds: float | None = None
    trials: int | None = None

    @property
    def nothing(self) -> bool:
        """Whether no trial may begin any more."""
        return (self.seconds is not None and self.seconds <= 0) or (self.trials is not None and self.trials <= 0)


@dataclass(frozen=True)
class Plan:
    """The rungs of a bracket that are to come.

    Attributes:
        sizes: configurations of each.
        amounts: how much each of these trains.
    """

    sizes: tuple[int, ...]
    amounts: tuple[Amount, ...]

    def seconds(self, cost: Cost) -> float:
        return sum(size * cost.seconds(amount) for size, amount in zip(self.sizes, self.amounts, strict=True))

    def fits(self, left: Left, cost: Cost | None) -> bool:
        """Whether the budget suffices for all of it."""
        if left.trials is not None and sum(self.sizes) > left.trials:
            return False
        return left.seconds is None or (cost is not None and self.seconds(cost) <= left.seconds)


def rungs_up_to(top: Amount, count: int, limits: Limits, growth: float = GROWTH) -> tuple[Amount, ...]:
    """At most `count` growing amounts that end with `top`; fewer where the shortest would be shorter than the least."""
    amounts = [top]
    while len(amounts) < count:
        shorter = limits.amount(amounts[0].passes / growth)
        if shorter.passes >= amounts[0].passes or amounts[0].passes / growth < limits.least:
            break
        amounts.insert(0, shorter)
    return tuple(amounts)


def new_bracket(limits: Limits, left: Left, cost: Cost | None, *, whole_only: bool = False) -> Plan | None:
    """The richest bracket that the budget suffices for; None where it suffices for none.

    Args:
        cost: needed where the time is limited.
        whole_only: its last rung must be the whole training, as that of an earlier bracket was.
    """
    for scheme in SCHEMES:
        amounts = rungs_up_to(limits.most, len(scheme), limits)
        plan = Plan(scheme[: len(amounts)], amounts)
        if plan.fits(left, cost):
            return plan
    if whole_only:
        return None
    if left.trials is not None and left.trials < sum(SCHEMES[-1]):
        # Too few to be worth a first rung: as many whole trainings, or shorter ones where the time is limited too.
        return next((plan for plan in _shortened(limits, (left.trials,)) if plan.fits(left, cost)), None)
    for scheme in SHORTENED:
        for plan in _shortened(limits, scheme):
            if len(plan.sizes) == len(scheme) and plan.fits(left, cost):
                return plan
    # Whatever fits into this little time: the first configurations, as short as a trial can be.
    least = limits.amount(limits.least)
    affordable = 0 if cost is None or left.seconds is None else int(left.seconds / cost.seconds(least))
    if left.trials is not None:
        affordable = min(affordable, left.trials)
    return Plan((min(affordable, SCHEMES[-1][0]),), (least,)) if affordable >= 1 else None


def _shortened(limits: Limits, scheme: tuple[int, ...]) -> Iterator[Plan]:
    """Brackets of a scheme with ever shorter trials."""
    passes = float(limits.most.passes)
    while passes >= limits.least:
        amounts = rungs_up_to(limits.amount(passes), len(scheme), limits)
        yield Plan(scheme[: len(amounts)], amounts)
        passes *= 0.9


def rest_of_bracket(
    done: Amount, sizes: Sequence[int], limits: Limits, left: Left, cost: Cost | None, *, competitors: int
) -> Plan | None:
    """The rungs that follow on one that is complete; None where there is none, or no time for one.

    Args:
        done: how much the trials of the complete rung have trained.
        sizes: configurations of the rungs that were planned to follow; () after the last one, where a larger budget may
            have been given since: the best two then go on.
        competitors: configurations that can go on.
    """
    if done.passes >= limits.most.passes or competitors < 1:
        return None
    planned = tuple(min(size, competitors) for size in sizes) or (min(2, competitors),)
    for following in (planned, planned[-1:]):
        needed = (limits.most.passes / done.passes) ** (1 / len(following))
        for growth in sorted({min(needed, growth) for growth in GROWTHS}, reverse=True):
            amounts: list[Amount] = []
            passes = float(done.passes)
            for _ in following:
                passes *= growth
                amounts.append(limits.amount(passes + 1e-6))
            grown = [done, *amounts]
            if any(after.passes <= before.passes for before, after in zip(grown, amounts, strict=False)):
                continue
            plan = Plan(following, tuple(amounts))
            if plan.fits(left, cost):
                return plan
    return None


def survivors(candidates: Sequence[T], score: Callable[[T], float], count: int) -> list[T]:
    """The best `count` of a rung, best first: lower is better, of equals the earlier. What has diverged (infinity) never
    goes on."""
    ranked = sorted(candidates, key=score)
    return [candidate for candidate in ranked if math.isfinite(score(candidate))][:count]
