"""The schedule of a search: numbers in, rungs out."""

from __future__ import annotations

import itertools
import math

import pytest

from distillkit.tuning.halving import (
    SCHEMES,
    Amount,
    Cost,
    Left,
    Limits,
    new_bracket,
    rest_of_bracket,
    rungs_up_to,
    survivors,
)

LIMITS = Limits(texts=200, epochs=3, step=4, least=32)


@pytest.mark.parametrize("passes", [0, 1, 31, 33, 100, 150, 170, 200, 250, 401, 479, 481, 600, 10_000])
def test_an_amount_is_whole_steps_or_whole_epochs(passes: int) -> None:
    amount = LIMITS.amount(passes)
    assert amount.epochs == 1 or amount.texts == LIMITS.texts
    assert amount.texts == LIMITS.texts or amount.texts % LIMITS.step == 0
    assert LIMITS.least <= amount.passes <= LIMITS.most.passes
    if LIMITS.least <= passes < 150:
        assert passes <= amount.passes < passes + LIMITS.step
    if passes >= 480:
        assert amount == LIMITS.most


def test_fewer_texts_than_a_step() -> None:
    limits = Limits(texts=3, epochs=1, step=8, least=3)
    assert limits.amount(1) == limits.amount(3) == limits.most == Amount(3, 1)
    plan = new_bracket(limits, Left(trials=18), None)
    assert plan is not None
    assert plan.amounts == (Amount(3),)


def test_rungs_grow_up_to_the_top_and_never_below_the_least() -> None:
    assert [amount.passes for amount in rungs_up_to(LIMITS.most, 3, LIMITS)] == [68, 200, 600]
    assert [amount.passes for amount in rungs_up_to(Amount(200), 3, LIMITS)] == [68, 200]
    assert rungs_up_to(Amount(32), 3, LIMITS) == (Amount(32),)


@pytest.mark.parametrize("trials", range(1, 60))
def test_a_number_of_trials_is_never_exceeded_and_ends_with_whole_trainings(trials: int) -> None:
    plan = new_bracket(LIMITS, Left(trials=trials), None)
    assert plan is not None
    assert sum(plan.sizes) <= trials
    assert plan.amounts[-1] == LIMITS.most
    richer = [scheme for scheme in SCHEMES if sum(scheme) <= trials]
    assert plan.sizes == (richer[0] if richer else (trials,))


@pytest.mark.parametrize("seconds", [2, 10, 60, 300, 1200, 1e5])
@pytest.mark.parametrize("cost", [Cost(1.0, 0.05), Cost(12.0, 1.0), Cost(0.0, 0.001)])
def test_a_bracket_fits_into_the_time(seconds: float, cost: Cost) -> None:
    plan = new_bracket(LIMITS, Left(seconds=seconds), cost)
    if plan is None:
        assert cost.seconds(Amount(32)) > seconds
        return
    assert (
        sum(size * (cost.fixed + cost.per_text * a.passes) for size, a in zip(plan.sizes, plan.amounts, strict=True))
        <= seconds
    )
    assert [a.passes for a in plan.amounts] == sorted({a.passes for a in plan.amounts})
    assert list(plan.sizes) == sorted(plan.sizes, reverse=True)


def test_more_time_is_never_a_poorer_bracket() -> None:
    cost, best = Cost(5.0, 0.3), (0, 0.0)
    for seconds in range(50, 6000, 50):
        plan = new_bracket(LIMITS, Left(seconds=seconds), cost)
        assert plan is not None
        value = (plan.amounts[-1].passes == LIMITS.most.passes, plan.seconds(cost))
        assert value[0] >= best[0]
        best = value


def test_the_rest_of_a_bracket_follows_the_plan() -> None:
    rest = rest_of_bracket(Amount(68), (4, 2), LIMITS, Left(trials=6), None, competitors=12)
    assert rest is not None
    assert rest.sizes == (4, 2)
    assert [amount.passes for amount in rest.amounts] == [200, 600]


def test_the_rest_shrinks_to_the_time_that_is_left() -> None:
    cost = Cost(1.0, 0.1)
    lengths = []
    for seconds in (10_000, 120, 80, 40, 1):
        rest = rest_of_bracket(Amount(32), (4, 2), LIMITS, Left(seconds=seconds), cost, competitors=12)
        if rest is not None:
            assert rest.seconds(cost) <= seconds
        lengths.append(0 if rest is None else rest.amounts[-1].passes)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1] == 0


def test_after_the_whole_training_or_without_survivors_nothing_follows() -> None:
    assert rest_of_bracket(LIMITS.most, (), LIMITS, Left(trials=9), None, competitors=4) is None
    assert rest_of_bracket(Amount(68), (4, 2), LIMITS, Left(trials=9), None, competitors=0) is None


def test_a_larger_budget_lets_the_best_two_go_on() -> None:
    rest = rest_of_bracket(Amount(68), (), LIMITS, Left(seconds=1000), Cost(1, 0.1), competitors=4)
    assert rest is not None
    assert rest.sizes == (2,)
    assert rest.amounts[0].passes > 68


def test_survivors_against_all_orders() -> None:
    scores = {"a": 2.0, "b": 1.0, "c": math.inf, "d": 1.5}
    for order in itertools.permutations(scores):
        assert survivors(order, scores.__getitem__, 2) == ["b", "d"]
        assert survivors(order, scores.__getitem__, 9) == ["b", "d", "a"]
    assert survivors("xy", lambda _: 1.0, 1) == ["x"]


def test_the_cost_is_that_of_the_longest_trials_and_the_usual_loading() -> None:
    assert Cost.measured([]) is None
    cost = Cost.measured([(Amount(10), 9.0, 30.0), (Amount(100), 20.0, 2.0), (Amount(50, 2), 24.0, 3.0)])
    assert cost == Cost(3.0, 0.22)
    assert cost.seconds(Amount(50, 2)) == pytest.approx(25.0)
