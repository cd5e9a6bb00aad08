"""The loop of a search, with trials that are a formula: a valley over the learning rate that moves with the length."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillkit.settings.resolve import resolve
from distillkit.tuning.halving import Amount, Limits
from distillkit.tuning.journal import Journal, Trial
from distillkit.tuning.outcome import Outcome
from distillkit.tuning.search import Budget, Search, best_trial, limits_of
from distillkit.tuning.space import Settings, Space, key_of

LIMITS = limits_of(texts=400, epochs=2, texts_per_step=4)
START = 5.0


class Killed(BaseException):
    """In the place of kill -9."""


def formula(settings: Settings, amount: Amount) -> float:
    """Best at 6e-4, worse by the square of the distance in decades; more texts help; hopeless above 1.5e-3."""
    if settings["learning_rate"] > 1.5e-3:
        return math.inf
    distance = math.log10(settings["learning_rate"] / 6e-4)
    return 4 - 0.3 * math.log10(amount.passes) + distance**2 + 0.1 * (settings["temperature"] - 1)


class World:
    """A search that can be interrupted and continued, on a journal in a file."""

    def __init__(self, path: Path, score: Callable[[Settings, Amount], float] = formula, **given: Any) -> None:
        self.path = path
        self.score = score
        self.space = Space.of(resolve(given).parameters)
        self.ran: list[tuple[str, int]] = []
        self.said: list[str] = []

    def search(self, *, die_at: int | None = None, limits: Limits = LIMITS, **budget: Any) -> Journal:
        journal = Journal.open(self.path, "world")

        def run_trial(settings: Settings, amount: Amount, label: str) -> Trial:
            if die_at is not None and len(self.ran) == die_at:
                raise Killed
            self.ran.append((key_of(settings), amount.passes))
            value = self.score(settings, amount)
            training = 0.05 * amount.passes
            diverged = None if math.isfinite(value) else "nan"
            return Trial(settings, amount, value, diverged, 2 + training, training if diverged is None else 0.0)

        Search(self.space, limits, Budget(**budget), journal, run_trial, self.said.append).run()
        return journal


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("budget", [{"trials": 18}, {"seconds": 600.0}, {"seconds": 200.0}])
def test_the_valley_is_found(tmp_path: Path, seed: int, budget: dict[str, Any]) -> None:
    best = best_trial(World(tmp_path / "j", seed=seed).search(**budget))
    assert best is not None
    assert 2e-4 < best.settings["learning_rate"] < 1.5e-3
    assert best.settings["temperature"] <= 2


@pytest.mark.parametrize("trials", [1, 3, 6, 18, 30, 41])
def test_trials_are_counted(tmp_path: Path, trials: int) -> None:
    world = World(tmp_path / "j")
    journal = world.search(trials=trials)
    assert len(world.ran) == journal.counted <= trials
    assert len(set(world.ran)) == len(world.ran)
    assert max(passes for _, passes in world.ran) == LIMITS.most.passes


@pytest.mark.parametrize("seconds", [30.0, 100.0, 333.0, 600.0, 1500.0])
def test_the_time_holds_to_one_trial(tmp_path: Path, seconds: float) -> None:
    journal = World(tmp_path / "j").search(seconds=seconds)
    longest = max(trial.seconds for trial in journal.trials)
    assert journal.seconds < seconds + longest
    if seconds >= 100:
        assert journal.seconds > 0.6 * seconds or best_trial(journal).amount == LIMITS.most  # type: ignore[union-attr]


def test_a_short_trial_that_scored_better_does_not_win(tmp_path: Path) -> None:
    """Longer training may make students worse; what was trained as the run will be is what counts."""
    world = World(tmp_path / "j", score=lambda settings, amount: formula(settings, amount) + amount.passes / 100)
    best = best_trial(world.search(trials=18))
    assert best is not None
    assert best.amount == LIMITS.most


def test_the_whole_training_is_reached_where_the_time_suffices(tmp_path: Path) -> None:
    best = best_trial(World(tmp_path / "j").search(seconds=1500.0))
    assert best is not None
    assert best.amount == LIMITS.most


@pytest.mark.parametrize("die_at", range(1, 18))
def test_a_killed_search_ends_as_always(tmp_path: Path, die_at: int) -> None:
    undisturbed = World(tmp_path / "undisturbed").search(trials=18)
    world = World(tmp_path / "killed")
    with pytest.raises(Killed):
        world.search(die_at=die_at, trials=18)
    resumed = world.search(trials=18)
    assert resumed.trials == undisturbed.trials
    assert resumed.rungs == undisturbed.rungs
    assert len(world.ran) == len(undisturbed.trials)  # The one that was cut off is not in it.


@pytest.mark.parametrize("die_at", [1, 4, 9, 14])
def test_a_killed_search_by_time_takes_the_same_decisions(tmp_path: Path, die_at: int) -> None:
    undisturbed = World(tmp_path / "undisturbed").search(seconds=300.0)
    world = World(tmp_path / "killed")
    with pytest.raises(Killed):
        world.search(die_at=die_at, seconds=300.0)
    assert world.search(seconds=300.0).trials == undisturbed.trials


def test_nothing_is_left_to_do_with_the_same_budget(tmp_path: Path) -> None:
    world = World(tmp_path / "j")
    world.search(trials=18)
    before = len(world.ran)
    world.search(trials=18)
    assert len(world.ran) == before


@pytest.mark.parametrize(
    ("small", "large"), [({"trials": 6}, {"trials": 24}), ({"seconds": 120.0}, {"seconds": 600.0})]
)
def test_a_larger_budget_extends_the_search(tmp_path: Path, small: dict[str, Any], large: dict[str, Any]) -> None:
    world = World(tmp_path / "j")
    first = world.search(**small)
    done, best = list(first.trials), best_trial(first)
    second = world.search(**large)
    assert second.trials[: len(done)] == done
    assert len(second.trials) > len(done)
    better = best_trial(second)
    assert best is not None
    assert better is not None
    assert formula(better.settings, LIMITS.most) <= formula(best.settings, LIMITS.most)


def test_an_unlimited_number_of_trials_still_ends(tmp_path: Path) -> None:
    world = World(tmp_path / "j")
    world.search(seconds=1e9)
    assert len(world.ran) < 120


def test_where_the_first_trial_diverges_another_one_tells_the_time(tmp_path: Path) -> None:
    journal = World(tmp_path / "j", learning_rate=0.5, allow_out_of_range=True).search(seconds=300.0)
    assert journal.trials[0].diverged is not None
    assert best_trial(journal) is not None


def test_where_everything_diverges_the_search_ends(tmp_path: Path) -> None:
    journal = World(tmp_path / "j", score=lambda *_: math.inf).search(trials=18)
    assert best_trial(journal) is None
    assert journal.counted == 12
    given = World(tmp_path / "k").space.given
    outcome = Outcome.of(journal, given, START, LIMITS)
    assert outcome.best is None
    assert "worse than before" in outcome.sentences()[0]


# --- what is said at the end ------------------------------------------------------------------------------------------


def said(journal: Journal, world: World) -> str:
    return "\n".join(Outcome.of(journal, world.space.given, START, LIMITS).sentences())


def test_it_is_said_that_the_given_configuration_was_not_beaten(tmp_path: Path) -> None:
    world = World(tmp_path / "j", learning_rate=6e-4, temperature=1.0)
    journal = world.search(trials=18)
    outcome = Outcome.of(journal, world.space.given, START, LIMITS)
    assert outcome.beaten is False
    assert "was not beaten" in said(journal, world)
    assert outcome.rows()[0][-1] == "as given"


def test_the_given_configuration_is_compared_after_equal_training(tmp_path: Path) -> None:
    world = World(tmp_path / "j")
    journal = world.search(trials=18)
    outcome = Outcome.of(journal, world.space.given, START, LIMITS)
    assert outcome.beaten is True
    assert outcome.given_trial is not None
    assert outcome.best_there is not None
    assert outcome.given_trial.amount == outcome.best_there.amount
    assert outcome.best_there.score < outcome.given_trial.score
    assert f"came to {outcome.given_trial.score:.4f} after" in said(journal, world)
    assert "optimistic" in said(journal, world)


def test_it_is_said_that_trials_were_shorter_than_the_training(tmp_path: Path) -> None:
    short, long = World(tmp_path / "short"), World(tmp_path / "long")
    assert "lower learning rate" in said(short.search(seconds=120.0), short)
    assert "lower learning rate" not in said(long.search(trials=18), long)


def test_it_is_said_that_the_best_rate_lies_at_an_end(tmp_path: Path) -> None:
    for name, score, word in (("up", lambda s, _: -s["learning_rate"], "highest"), ("down", lambda s, _: s["learning_rate"], "lowest")):  # fmt: skip
        world = World(tmp_path / name, score=score)
        assert f"is the {word} that was tried" in said(world.search(trials=18), world)
    world = World(tmp_path / "inside")
    assert "may lie beyond" not in said(world.search(trials=18), world)


def test_the_table_ranks_by_length_then_score_and_each_once(tmp_path: Path) -> None:
    world = World(tmp_path / "j")
    journal = world.search(trials=18)
    outcome = Outcome.of(journal, world.space.given, START, LIMITS)
    assert len(outcome.rows()) == 12
    keys = [(trial.diverged is not None, -trial.amount.passes, trial.score) for trial in outcome.ranking]
    assert keys == sorted(keys)
    record = outcome.record()
    assert record["best"] == record["table"][0]
    assert len(record["all_trials"]) == len(journal.trials)
