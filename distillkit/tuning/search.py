"""The loop of a search: begin a rung, run its trials, let the best go on, until the budget ends.

What happens next follows from the journal and the budget alone. Time is what finished trials have taken, so that an
attempt that is killed costs the budget nothing, and a larger budget goes on where the last one ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distillkit.console import format_duration
from distillkit.tuning.halving import (
    LEAST_STEPS,
    MOST_BRACKETS,
    SCHEMES,
    Amount,
    Cost,
    Left,
    Limits,
    Plan,
    new_bracket,
    rest_of_bracket,
    survivors,
)
from distillkit.tuning.journal import Journal, Rung, Trial
from distillkit.tuning.space import Settings, Space, spelled

RunTrial = Callable[[Settings, Amount, str], Trial]
"""(settings, amount, what the display calls it) -> the trial, once it has come to its end."""


@dataclass(frozen=True)
class Budget:
    """What a search may use; at least one of the two is limited.

    Attributes:
        seconds: of all trials together.
        trials: at most so many.
    """

    seconds: float | None = None
    trials: int | None = None

    def left(self, journal: Journal) -> Left:
        """What is left of it."""
        return Left(
            None if self.seconds is None else self.seconds - journal.seconds,
            None if self.trials is None else self.trials - journal.counted,
        )


def limits_of(texts: int, epochs: int, texts_per_step: int) -> Limits:
    """The amounts of a search over so many texts; a trial has at least `LEAST_STEPS` optimizer steps."""
    return Limits(texts, epochs, texts_per_step, min(texts, LEAST_STEPS * texts_per_step))


class Search:
    """Successive halving over the settings of a training.

    Args:
        space: which settings are tried.
        limits: which amounts.
        budget: how much of either.
        journal: what is known already; gains what is found out.
        run_trial: trains and scores.
        tell: shows a line of what happens.
    """

    def __init__(
        self,
        space: Space,
        limits: Limits,
        budget: Budget,
        journal: Journal,
        run_trial: RunTrial,
        tell: Callable[[str], None],
    ) -> None:
        self.space = space
        self.limits = limits
        self.budget = budget
        self.journal = journal
        self.run_trial = run_trial
        self.tell = tell

    def run(self) -> None:
        """Search until the budget ends, or there is nothing left that is worth a trial.

        Raises:
            Interrupted: a signal arrived; finished trials are in the journal.
            DistillkitError: a trial or a write failed; likewise.
        """
        if self.budget.seconds is not None:
            self._measure_time()
        while (rung := self._open_rung() or self._next_rung()) is not None:
            if not finish_rung(rung, self.journal, self.run_trial, self._may_begin, self._told):
                return

    # --- which rung ---

    def _open_rung(self) -> Rung | None:
        """The rung that an earlier attempt has begun."""
        last = self.journal.rungs[-1] if self.journal.rungs else None
        return last if last is not None and missing_trials(last, self.journal) else None

    def _next_rung(self) -> Rung | None:
        """The rung that follows on the last one, or the first one of a new bracket; None where the budget ends."""
        rungs, left = self.journal.rungs, self.budget.left(self.journal)
        if left.nothing:
            return None
        if not rungs:
            return self._first_of_bracket(new_bracket(self.limits, left, self._cost()))
        last = rungs[-1]
        best = survivors(
            last.candidates, lambda settings: self.journal.score(settings, last.amount), len(last.candidates)
        )
        plan = rest_of_bracket(last.amount, last.following, self.limits, left, self._cost(), competitors=len(best))
        if plan is not None:
            chosen = tuple(best[: plan.sizes[0]])
            return self._begin(Rung(last.bracket, last.number + 1, plan.amounts[0], chosen, plan.sizes[1:]), plan)
        whole = any(rung.amount == self.limits.most for rung in rungs)
        if not whole or (self.budget.trials is None and last.bracket + 1 >= MOST_BRACKETS):
            return None
        return self._first_of_bracket(new_bracket(self.limits, left, self._cost(), whole_only=True))

    def _first_of_bracket(self, plan: Plan | None) -> Rung | None:
        if plan is None:
            return None
        rungs = self.journal.rungs
        if not rungs:
            candidates = self.space.first(plan.sizes[0])
        else:
            winner = best_trial(self.journal)
            tried = [trial.settings for trial in self.journal.trials]
            near = self.space.given if winner is None else winner.settings
            candidates = self.space.near(near, plan.sizes[0], tried)
        if not candidates:
            return None
        number = rungs[-1].bracket + 1 if rungs else 0
        return self._begin(Rung(number, 0, plan.amounts[0], tuple(candidates), plan.sizes[1:]), plan)

    def _begin(self, rung: Rung, plan: Plan) -> Rung:
        self.journal.begin_rung(rung)
        cost = self._cost()
        about = "" if cost is None else f", about {format_duration(plan.seconds(cost))} to the end of this bracket"
        self.tell(f"rung {rung.number + 1}: {len(rung.candidates)} configurations, {amount_words(rung.amount)}{about}")
        return rung

    # --- time ---

    def _measure_time(self) -> None:
        """A first short trial, which tells how long others will take; another one where it diverges half-way."""
        amount = self.limits.amount(self.limits.least)
        for settings in self.space.first(SCHEMES[-1][0]):
            if self._cost() is not None or not self._may_begin():
                return
            if self.journal.trial(settings, amount) is None:
                self.journal.add_trial(self.run_trial(settings, amount, "measuring the time of a step"))

    def _cost(self) -> Cost | None:
        return Cost.measured(
            (trial.amount, trial.training_seconds, trial.fixed_seconds)
            for trial in self.journal.trials
            if trial.trained_to_its_end
        )

    def _may_begin(self) -> bool:
        return not self.budget.left(self.journal).nothing

    def _told(self, trial: Trial) -> None:
        left = self.budget.left(self.journal).seconds
        remaining = "" if left is None else f"; {format_duration(left)} left"
        self.tell(f"{spelled(trial.settings)}: {score_words(trial)} in {format_duration(trial.seconds)}{remaining}")


def amount_words(amount: Amount) -> str:
    """`on 64 texts`, `on 200 texts, 3 times`."""
    texts = f"on {amount.texts:,} text{'' if amount.texts == 1 else 's'}"
    return texts if amount.epochs == 1 else f"{texts}, {amount.epochs} times"


def score_words(trial: Trial) -> str:
    """`1.6012 bits per byte`, or why there is no score."""
    return f"{trial.score:.4f} bits per byte" if trial.diverged is None else f"diverged ({trial.diverged})"


def missing_trials(rung: Rung, journal: Journal) -> list[Settings]:
    """The configurations of a rung whose trial is still to be run."""
    return [settings for settings in rung.candidates if journal.trial(settings, rung.amount) is None]


def finish_rung(
    rung: Rung,
    journal: Journal,
    run_trial: RunTrial,
    may_begin: Callable[[], bool],
    told: Callable[[Trial], Any],
) -> bool:
    """Run what a rung lacks.

    Args:
        may_begin: whether the budget allows another trial.
        told: is given every trial that came to its end.

    Returns:
        Whether it is complete; the budget may have ended.
    """
    for settings in missing_trials(rung, journal):
        if not may_begin():
            return False
        number = 1 + rung.candidates.index(settings)
        trial = run_trial(settings, rung.amount, f"rung {rung.number + 1}, trial {number} of {len(rung.candidates)}")
        journal.add_trial(trial)
        told(trial)
    return True


def best_trial(journal: Journal) -> Trial | None:
    """The best of the trials that trained longest, of equals the earlier; None where all diverged."""
    finite = [trial for trial in journal.trials if trial.diverged is None]
    return min(finite, key=lambda trial: (-trial.amount.passes, trial.score), default=None)
