"""What is searched for which configuration, and how the configurations are spread."""

from __future__ import annotations

import dataclasses
import math
from itertools import islice
from typing import Any

import pytest

from distillkit.settings.declared import choices
from distillkit.settings.parameters import Parameters
from distillkit.settings.resolve import resolve
from distillkit.tuning.space import (
    ALPHAS,
    DIVERGENCES,
    LEARNING_RATES,
    TEMPERATURES,
    Space,
    key_of,
    preset_settings,
    searched_names,
    spelled,
    spread_points,
    value_words,
)


def config(**values: Any) -> Parameters:
    return resolve(values).parameters


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, ("learning_rate", "temperature", "alpha", "divergence")),
        ({"box_type": "black"}, ("learning_rate", "alpha")),
        ({"alpha": 0.0}, ("learning_rate",)),
        ({"alpha": 0.0, "box_type": "black"}, ("learning_rate",)),
        ({"alignment": "alm"}, ("learning_rate", "alpha")),
        ({"alignment": "uld"}, ("learning_rate", "temperature", "alpha")),
        ({"teacher_cache": "sparse"}, ("learning_rate", "temperature", "alpha")),
    ],
)
def test_what_is_searched(values: dict[str, Any], names: tuple[str, ...]) -> None:
    assert searched_names(config(**values)) == names
    for settings in Space.of(config(**values)).first(12):
        assert tuple(settings) == names


@pytest.mark.parametrize("seed", range(5))
def test_the_given_configuration_and_the_presets_are_among_the_first(seed: int) -> None:
    space = Space.of(config(seed=seed, learning_rate=1.3e-4, temperature=4))
    first = space.first(12)
    assert first[0] == {"learning_rate": 1.3e-4, "temperature": 4.0, "alpha": 0.7, "divergence": "forward-kl"}
    quickstart = config(**{"learning_rate": 8e-4})
    for preset in [*preset_settings(searched_names(quickstart)), {"learning_rate": 5e-5, "temperature": 1.0, "alpha": 0.5, "divergence": "forward-kl"}]:  # fmt: skip
        assert preset in first
    assert len({key_of(settings) for settings in first}) == 12


@pytest.mark.parametrize("seed", range(5))
def test_a_larger_search_tries_what_a_smaller_one_does(seed: int) -> None:
    space = Space.of(config(seed=seed))
    assert space.first(24)[:8] == space.first(8) == space.first(8)
    assert Space.of(config(seed=seed + 1)).first(24) != space.first(24)


@pytest.mark.parametrize("seed", range(20))
def test_the_spread_covers_every_range(seed: int) -> None:
    space = dataclasses.replace(Space.of(config(seed=seed)), presets=())
    spread = space.first(25)[1:]
    rates = sorted(math.log(settings["learning_rate"]) for settings in spread)
    ends = [math.log(end) for end in LEARNING_RATES]
    gaps = [after - before for before, after in zip([ends[0], *rates], [*rates, ends[1]], strict=True)]
    # 24 points at even distances would leave gaps of 1/24; random ones leave one of about 4/24.
    assert max(gaps) < 2.2 / 24 * (ends[1] - ends[0])
    assert {settings["temperature"] for settings in spread} == set(TEMPERATURES)
    assert {settings["alpha"] for settings in spread} == set(ALPHAS)
    others = [settings["divergence"] for settings in spread if settings["divergence"] != "forward-kl"]
    assert 3 <= len(others) <= 9
    assert set(others) <= set(DIVERGENCES) <= set(choices("divergence"))


def test_points_are_in_the_cube_and_in_one_dimension_golden() -> None:
    points = list(islice(spread_points(1, 0), 3))
    golden = (math.sqrt(5) - 1) / 2
    assert (points[1][0] - points[0][0]) % 1 == pytest.approx(golden)
    assert all(0 <= number < 1 for point in islice(spread_points(4, 7), 500) for number in point)


def test_later_brackets_look_near_the_best_and_repeat_nothing() -> None:
    space = Space.of(config())
    tried = space.first(12)
    best = {"learning_rate": 1e-3, "temperature": 1.0, "alpha": 0.5, "divergence": "forward-kl"}
    near = space.near(best, 8, tried)
    assert len(near) == 8
    assert all(1e-3 / 3.1 <= settings["learning_rate"] <= 3.1e-3 for settings in near)
    assert not {key_of(settings) for settings in near} & {key_of(settings) for settings in tried}
    assert not {key_of(settings) for settings in near} & {key_of(item) for item in space.near(best, 8, [*tried, *near])}


def test_words() -> None:
    assert [value_words(value) for value in (4e-4, 6.1e-4, 0.01, 2.0, "jsd")] == ["4e-4", "6.1e-4", "0.01", "2", "jsd"]
    assert spelled({"learning_rate": 8e-4, "alpha": 0.5}) == "learning rate 8e-4, alpha 0.5"
