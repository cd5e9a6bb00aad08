"""From layers of settings to one validated configuration that knows where each value came from.

Precedence: default < preset < configuration file < environment (DISTILLKIT_NAME) < flag or Python argument.
Everything is refused here, before anything is loaded or written (exit code 2).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from distillkit.errors import UsageError
from distillkit.settings import declared
from distillkit.settings.answer_values import check_keep_answers
from distillkit.settings.conflicts import check_conflicts
from distillkit.settings.data_values import check_delimiter, check_encoding, check_mix
from distillkit.settings.declared import ENVIRONMENT_PREFIX
from distillkit.settings.device_values import check_teacher_devices
from distillkit.settings.harness_values import check_tasks_value
from distillkit.settings.parameters import Parameters
from distillkit.settings.paths import check_folder_name, user_path
from distillkit.settings.presets import read_preset
from distillkit.settings.server_values import check_server_url
from distillkit.settings.strict_yaml import read_yaml_mapping
from distillkit.settings.teacher_values import check_extra_teachers, check_teacher_weights
from distillkit.settings.training_values import check_model_kwargs, check_trackers
from distillkit.words import reworded

# Variables with the prefix that are not parameters.
OTHER_VARIABLES = frozenset({"DISTILLKIT_CACHE", "DISTILLKIT_LANG", "DISTILLKIT_DEBUG", "DISTILLKIT_TEACHER_KEY"})

# What a run is about, at its default too.
_NAMED_ALWAYS = ("teacher_model", "student_model", "dataset")

DERIVED = "derived"
ENVIRONMENT = "environment"
DEFAULT = "default"


@dataclass(frozen=True)
class Layer:
    """Settings from one place: `label` is shown in the table ("preset weak-pc", "flag", …)."""

    label: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class ResolvedConfig:
    """The configuration of a run and, for each value, where it came from."""

    parameters: Parameters
    sources: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Name to value, in the order of the declaration."""
        return dataclasses.asdict(self.parameters)

    def rows(self) -> list[tuple[str, Any, str]]:
        """(name, value, source) of the core parameters, and of the advanced ones that differ from their defaults."""
        values = self.as_dict()
        return self._rows(name for name in values if name in declared.core_names() or self._differs(name))

    def table_rows(self, *, everything: bool, lang: str = "en") -> list[tuple[str, Any, str]]:
        """The same for people: models, texts, and what differs from its default; with `everything` all parameters."""
        unused = self._unused()
        rows = self._rows(
            name
            for name in self.as_dict()
            if everything or (name not in unused and (name in _NAMED_ALWAYS or self._differs(name)))
        )
        return [(name, value, reworded(lang, source, "from")) for name, value, source in rows]

    def left_out(self, shown: Sequence[tuple[str, Any, str]]) -> int:
        """How many parameters a table leaves out."""
        return len(declared.fields()) - len(shown)

    def _differs(self, name: str) -> bool:
        return getattr(self.parameters, name) != declared.default(name)

    def _unused(self) -> dict[str, str]:
        """Parameters over which another one wins, and words for that."""
        values = self.as_dict()
        unused = {
            name: f"not used, {winner} wins"
            for name, winner in declared.replacements().items()
            if values[winner] is not None
        }
        if self.parameters.mix is not None:
            unused |= dict.fromkeys(("dataset", "dataset_path"), "not used, mix wins")
        return unused

    def _rows(self, names: Iterable[str]) -> list[tuple[str, Any, str]]:
        values, unused = self.as_dict(), self._unused()
        return [(name, values[name], unused.get(name, self.sources[name])) for name in names]


def resolve(
    explicit: Mapping[str, Any] | None = None,
    *,
    explicit_label: str = "argument",
    preset: str | None = None,
    config_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    base: Layer | None = None,
) -> ResolvedConfig:
    """Merge the layers and validate the result.

    Args:
        explicit: flags or Python arguments that were really given.
        preset, config_file: their names; missing ones are refused.
        environment: usually os.environ; None leaves the environment out.
        base: a layer under the preset, such as the configuration of the run that is being continued.

    Raises:
        UsageError: unknown key, wrong type, value out of range or impossible, conflict; names the flag that mends it.
    """
    notes: list[str] = []
    layers = [] if base is None else [base]
    layers += _layers(explicit, explicit_label, preset, config_file, environment, notes)
    values: dict[str, Any] = {name: declared.default(name) for name in declared.fields()}
    sources = dict.fromkeys(values, DEFAULT)
    rank = dict.fromkeys(values, -1)
    for level, layer in enumerate(layers):
        for name, value in layer.values.items():
            check_known_name(name, layer.label)
            values[name] = coerce(name, value, layer.label)
            sources[name], rank[name] = layer.label, level
    _settle_paths(values, sources, rank, settled=0 if base is not None else None)
    _settle_weights(values, sources, rank)
    _check_values(values, sources)
    check_conflicts(values)
    notes += _unused_notes(values, sources)
    return ResolvedConfig(Parameters(**values), sources, tuple(notes))


def value_in_layers(
    name: str,
    explicit: Mapping[str, Any] | None = None,
    *,
    explicit_label: str = "argument",
    preset: str | None = None,
    config_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """What `resolve` would take for one parameter, without a look at the others.

    It answers where the run lies that is to be continued, whose configuration the others may need to be valid.

    Raises:
        UsageError: the value is of the wrong type, or a preset or a file cannot be read.
    """
    value = declared.default(name)
    for layer in _layers(explicit, explicit_label, preset, config_file, environment, []):
        if name in layer.values:
            value = coerce(name, layer.values[name], layer.label)
    return value


def _layers(
    explicit: Mapping[str, Any] | None,
    explicit_label: str,
    preset: str | None,
    config_file: Path | None,
    environment: Mapping[str, str] | None,
    notes: list[str],
) -> list[Layer]:
    """What was given, from the weakest to the strongest; `notes` gains what is ignored."""
    layers: list[Layer] = []
    if preset is not None:
        layers.append(Layer(f"preset {preset}", read_preset(preset)))
    if config_file is not None:
        layers.append(Layer(f"file {config_file.name}", read_yaml_mapping(config_file, "configuration file")))
    if environment is not None:
        layers.append(Layer(ENVIRONMENT, _from_environment(environment, notes)))
    layers.append(Layer(explicit_label, dict(explicit or {})))
    return layers


def check_known_name(name: str, where: str, known: Iterable[str] | None = None) -> None:
    """Raise UsageError with a guess if `name` is no parameter."""
    names = list(known if known is not None else declared.fields())
    if name in names:
        return
    wanted = name.lower().replace("-", "_")
    begun = [known_name for known_name in names if known_name.startswith(f"{wanted}_")]
    near = begun or difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    guess = f"did you mean {near[0]!r}?" if near else "see: distillkit params"
    raise UsageError(f"unknown parameter {name!r} ({where})", hint=guess)


@functools.cache
def _adapter(name: str) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(declared.types()[name], config=pydantic.ConfigDict(coerce_numbers_to_str=True))


def _type_words(name: str) -> str:
    choices = declared.choices(name)
    if choices:
        return "one of " + ", ".join(choices)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(declared.kind(name), "a mapping")


def coerce(name: str, value: Any, where: str) -> Any:
    """`value` as the declared type: `"5e-5"` becomes a float, `"100"` an int, `""` or `"none"` None where allowed.

    An empty path or folder name is what is left of a variable that was never set, and not a wish for none; in the
    environment an empty variable is one that is not set.

    Raises:
        UsageError: it cannot be.
    """
    facts = declared.facts(name)
    if value == "" and where != ENVIRONMENT and (facts.takes_path or facts.location is not None):
        raise UsageError(
            f"{name}: it is empty ({where})", hint=f"leave it out, or give a value: {declared.spelled(name)}"
        )
    empty = value is None or (isinstance(value, str) and value.lower() in ("", "none", "null"))
    if empty and declared.is_optional(name):
        return None
    choices = declared.choices(name)
    wants_bool = declared.kind(name) is bool
    try:
        if isinstance(value, bool) != wants_bool and isinstance(value, bool | float | int):
            # pydantic would read `true` as 1, and 1 as true.
            raise ValueError
        if isinstance(value, str):
            value = value.strip() if choices else value
            if not value.strip() and not declared.facts(name).may_be_blank:
                raise ValueError
            if facts.is_large:
                value = _without_suffix(value)
        coerced = _adapter(name).validate_python(value)
        if choices and coerced not in choices:
            raise ValueError
        return coerced
    except ValueError as error:
        near = difflib.get_close_matches(str(value), choices, n=1) if choices else []
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            f"{name}: {value!r} is not {_type_words(name)} ({where}){guess}", hint=f"see: distillkit params {name}"
        ) from error


def _without_suffix(text: str) -> str | float:
    """`60M` -> 60e6, `1.5B` -> 1.5e9; another text as it is."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKmMbBgG])\s*", text)
    powers = {"k": 3, "m": 6, "b": 9, "g": 9}
    return round(float(match.group(1)) * 10 ** powers[match.group(2).lower()], 3) if match else text


def _from_environment(environment: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    known = {variable: name for name in declared.fields() if (variable := declared.environment_variable(name))}
    given: dict[str, str] = {}
    for variable, value in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES:
            continue
        if variable in known:
            given[known[variable]] = value
        else:
            near = difflib.get_close_matches(variable, list(known), n=1)
            notes.append(f"{variable} is no parameter and is ignored" + (f"; did you mean {near[0]}?" if near else ""))
    return given


def _settle_paths(
    values: dict[str, Any], sources: dict[str, str], rank: dict[str, int], *, settled: int | None
) -> None:
    """A path wins over a name; a name from a higher layer wins over a path from a lower one; both at once conflict. A mix is to
    the data set what a path is to a name.

    The layer `settled` is a whole configuration, names and paths alike: there the path has won already.
    """
    for name, path in (*declared.replacements().items(), ("dataset", "mix"), ("dataset_path", "mix")):
        if values[path] is None or values[name] is None or rank[name] < 0 or rank[name] == rank[path] == settled:
            continue
        if rank[name] == rank[path]:
            raise UsageError(
                f"{name} and {path} are both given ({sources[path]}): {values[name]!r} and {values[path]!r}",
                hint=f"give only one of {declared.spelled(name)} and {declared.spelled(path)}",
            )
        if rank[name] > rank[path]:
            values[path], sources[path] = None, f"{DERIVED} ({name} was given)"


def _settle_weights(values: dict[str, Any], sources: dict[str, str], rank: dict[str, int]) -> None:
    """Giving only one of two complements (alpha and beta) sets the other to 1 minus it."""
    for given, other in declared.complements().items():
        if rank[given] > rank[other]:
            values[other], sources[other] = round(1 - values[given], 12), f"{DERIVED} (1 - {given})"


_CHECKS = (
    ("encoding", check_encoding),
    ("csv_delimiter", check_delimiter),
    ("teacher_url", check_server_url),
    ("mix", check_mix),
    ("keep_answers", check_keep_answers),
    ("report_to", check_trackers),
    ("teacher_devices", check_teacher_devices),
    ("model_kwargs", check_model_kwargs),
    ("extra_teachers", check_extra_teachers),
    ("teacher_weights", check_teacher_weights),
    ("lm_eval", check_tasks_value),
)


def _check_values(values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(
                f"{name}: {value} is not a finite number ({sources[name]})", hint=f"use {declared.spelled(name)}"
            )
    for name, value in values.items():
        possible = declared.facts(name).possible
        if value is not None and possible is not None and not possible.holds(value):
            raise UsageError(
                f"{name}: {declared.number_words(value)} is impossible, it must be {possible.words} ({sources[name]})",
                hint=f"documented range: {declared.range_words(name)}",
            )
    for name, check in _CHECKS:
        if values[name] is not None:
            check(values[name], sources[name])
    _check_sums(values, sources)
    if not values["allow_out_of_range"]:
        _check_ranges(values, sources)
    _check_location(values)


def _check_sums(values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    for name, other in declared.complements().items():
        if abs(values[name] + values[other] - 1) > 1e-6:
            raise UsageError(
                f"{name} + {other} must be 1, but {name} is {values[name]:g} ({sources[name]}) "
                f"and {other} is {values[other]:g} ({sources[other]})",
                hint=f"give only one of {declared.spelled(name)} and {declared.spelled(other)}; the other one follows",
            )


def _check_ranges(values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    for name, value in values.items():
        facts = declared.facts(name)
        if value is None or facts.low is None or facts.high is None or facts.low <= value <= facts.high:
            continue
        raise UsageError(
            f"{name}: {declared.number_words(value)} is outside its range {declared.range_words(name)} ({sources[name]})",
            hint=f"choose {declared.spelled(name)} within the range, or lift the limit with --allow-out-of-range",
        )


def _check_location(values: Mapping[str, Any]) -> None:
    """Whether the system can have such a folder."""
    for name in declared.location_names():
        if values[name] is None:
            continue
        if declared.facts(name).location == "folder":
            check_folder_name(values[name])
        else:
            user_path(values[name], name)


def _unused_notes(values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[str]:
    """A note for each parameter that was given and has no effect."""
    for name, value in values.items():
        use = declared.facts(name).used_by
        if use is not None and sources[name] != DEFAULT and value != declared.default(name) and not use.holds(values):
            yield f"{name} has no effect here: it is used by {use.words}"
