"""What `tune` searches: which settings, in which ranges, and which configurations are tried first.

Learning rates are spread evenly on a logarithmic scale and the rest evenly over short lists, by a Kronecker sequence, every
beginning of which is well spread: multiples of an irrational number, modulo 1, shifted by the seed. For the learning rate,
which matters most, it is the golden ratio. A larger search tries what a smaller one does, and more.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distillkit.settings import conditions, declared
from distillkit.settings.parameters import Parameters
from distillkit.settings.presets import preset_names, read_preset
from distillkit.settings.resolve import coerce

Settings = dict[str, Any]
"""Values of the searched parameters by name, in the order of `searched_names`."""

LEARNING_RATES = (2e-5, 2e-3)
TEMPERATURES = (1.0, 1.5, 2.0, 3.0)
ALPHAS = (0.3, 0.5, 0.7, 0.9)
DIVERGENCES = ("jsd", "skew-kl", "reverse-kl")
# The forward KL has won most comparisons of benchmarks/cross_tokenizer; others get what is left.
FORWARD_SHARE = 0.75
# A later bracket looks for learning rates within this factor of the best one.
NEAR = 3.0


def searched_names(config: Parameters) -> tuple[str, ...]:
    """The parameters that are searched for this configuration.

    Black box has neither temperature nor divergence, plain fine-tuning (alpha 0) no alpha either. Where sparse targets are
    asked for by name, they are true to the forward KL alone; what a server tells is that of temperature 1, too.
    """
    values = vars(config)
    names = ["learning_rate"]
    if config.alpha > 0:
        served = conditions.is_served(values)
        if conditions.SOFTENED.holds(values) and not served:
            names.append("temperature")
        names.append("alpha")
        if not served and conditions.CHOSEN_DIVERGENCE.holds(values) and config.teacher_cache != "sparse":
            names.append("divergence")
    return tuple(names)


def settings_of(values: Mapping[str, Any], names: Sequence[str]) -> Settings:
    """The searched part of a configuration."""
    return {name: values[name] for name in names}


def spelled(settings: Mapping[str, Any]) -> str:
    """`learning rate 4e-4, temperature 1, alpha 0.5`."""
    return ", ".join(f"{name.replace('_', ' ')} {value_words(value)}" for name, value in settings.items())


def value_words(value: Any) -> str:
    """`0.00041` -> `4.1e-4`, `0.5` -> `0.5`: short, and as one can type it."""
    if isinstance(value, float) and 0 < value < 0.01:
        mantissa, _, power = f"{value:.5e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    return declared.number_words(value) if isinstance(value, float | int) else str(value)


def key_of(settings: Mapping[str, Any]) -> str:
    """Equal for equal settings, in whatever order."""
    return json.dumps(settings, sort_keys=True)


def preset_settings(names: Sequence[str]) -> list[Settings]:
    """The searched values of the defaults and of every preset, each once, the defaults first."""
    found = [{name: declared.default(name) for name in names}]
    for preset in preset_names():
        values = {name: coerce(name, value, f"preset {preset}") for name, value in read_preset(preset).items()}
        found.append({name: values.get(name, declared.default(name)) for name in names})
    return list({key_of(settings): settings for settings in found}.values())


@dataclass(frozen=True)
class Space:
    """The configurations of a search, in the order in which they are tried.

    Attributes:
        given: the searched part of the configuration as the user gave it; always the first.
        seed: of the spread.
        presets: those of the defaults and the presets; each takes turns with a spread one.
    """

    given: Settings
    seed: int
    presets: tuple[Settings, ...] = ()

    @classmethod
    def of(cls, config: Parameters) -> Space:
        names = searched_names(config)
        # A preset with alpha 0 has another search.
        presets = [item for item in preset_settings(names) if item.get("alpha", 1) > 0]
        given = settings_of(vars(config), names)
        # Those that differ most from what was given come first: a small bracket has room for few.
        presets.sort(key=lambda item: item["learning_rate"] == given["learning_rate"])
        return cls(given, config.seed, tuple(item for item in presets if item != given))

    def first(self, count: int) -> list[Settings]:
        """The configurations of the first bracket: the given one, then by turns spread ones and those of the presets."""
        spread, presets = self._spread(LEARNING_RATES), iter(self.presets)
        return _distinct(self._by_turns(spread, presets), count, tried=())

    def near(self, best: Settings, count: int, tried: Sequence[Settings]) -> list[Settings]:
        """Those of a later bracket: not tried yet, with learning rates near the best one.

        Args:
            best: the winner so far.
            tried: what was tried already.
        """
        rate = best["learning_rate"]
        return _distinct(self._spread((rate / NEAR, rate * NEAR)), count, tried)

    def _by_turns(self, spread: Iterator[Settings], presets: Iterator[Settings]) -> Iterator[Settings]:
        yield self.given
        for settings in spread:
            yield settings
            yield from (preset for preset in [next(presets, None)] if preset is not None)

    def _spread(self, rates: tuple[float, float]) -> Iterator[Settings]:
        for point in spread_points(len(self.given), self.seed):
            yield {name: _value(name, share, rates) for name, share in zip(self.given, point, strict=True)}


def _value(name: str, share: float, rates: tuple[float, float]) -> Any:
    """What `share`, 0 to 1, of the range of a parameter is."""
    if name == "learning_rate":
        low, high = map(math.log, rates)
        return float(f"{math.exp(low + share * (high - low)):.2g}")
    if name == "divergence":
        left = (share - FORWARD_SHARE) / (1 - FORWARD_SHARE)
        return "forward-kl" if left < 0 else DIVERGENCES[int(left * len(DIVERGENCES))]
    values = TEMPERATURES if name == "temperature" else ALPHAS
    return values[int(share * len(values))]


# For as many parameters as can be searched; of several, those whose first 24 points lie farthest apart in every two of them.
_STEPS = ((math.sqrt(5) - 1) / 2, math.sqrt(3), math.sqrt(6), math.sqrt(11))


def spread_points(dimensions: int, seed: int) -> Iterator[tuple[float, ...]]:
    """Points in the unit cube, each beginning of which is well spread; endless.

    Args:
        dimensions: numbers per point, at most four.
        seed: shifts all points, around the edges of the cube.
    """
    shifter = random.Random(f"tune/{seed}")
    shifts = [shifter.random() for _ in range(dimensions)]
    for number in itertools.count(1):
        yield tuple((shift + number * step) % 1.0 for shift, step in zip(shifts, _STEPS, strict=False))


# So many repetitions in a row: a short list of values has nothing new to give.
_MOST_REPEATED = 1000


def _distinct(candidates: Iterator[Settings], count: int, tried: Sequence[Settings]) -> list[Settings]:
    known = {key_of(settings) for settings in tried}
    chosen: list[Settings] = []
    repeated = 0
    while len(chosen) < count and repeated < _MOST_REPEATED:
        settings = next(candidates)
        if key_of(settings) in known:
            repeated += 1
            continue
        known.add(key_of(settings))
        chosen.append(settings)
        repeated = 0
    return chosen
