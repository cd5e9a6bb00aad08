"""From layers of settings to one validated configuration that knows where each value came from.

Precedence: default < preset < configuration file < environment (DISTILLKIT_NAME) < flag or Python argument.
Everything is refused here, before anything is loaded or written (exit code 2).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types as python_types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from distillkit.errors import UsageError
from distillkit.settings import parameters as declared
from distillkit.settings.parameters import Parameters
from distillkit.settings.paths import check_folder_name, user_path
from distillkit.settings.presets import read_preset
from distillkit.settings.strict_yaml import read_yaml_mapping

ENVIRONMENT_PREFIX = "DISTILLKIT_"
# Variables with the prefix that are not parameters.
OTHER_VARIABLES = frozenset({"DISTILLKIT_CACHE", "DISTILLKIT_LANG", "DISTILLKIT_DEBUG"})

DERIVED = "derived"
DEFAULT = "default"
_DEFAULTS = Parameters()

# Outside these a run is meaningless whatever the documented range: (name, test, what it must be).
_IMPOSSIBLE = (
    ("temperature", lambda value: value > 0, "greater than 0"),
    ("alpha", lambda value: 0 <= value <= 1, "between 0 and 1"),
    ("beta", lambda value: 0 <= value <= 1, "between 0 and 1"),
    ("learning_rate", lambda value: value > 0, "greater than 0"),
    ("warmup_fraction", lambda value: 0 <= value <= 1, "between 0 and 1"),
    ("epochs", lambda value: value >= 1, "at least 1"),
    ("batch_size", lambda value: value >= 1, "at least 1"),
    ("gradient_accumulation", lambda value: value >= 1, "at least 1"),
    ("sample_size", lambda value: value >= 1, "at least 1"),
    ("held_out_size", lambda value: value >= 1, "at least 1"),
    ("max_length", lambda value: value >= 8, "at least 8"),
    ("divergence_mix", lambda value: 0 < value < 1, "greater than 0 and less than 1"),
    ("ab_alpha", lambda value: value >= 0, "0 or greater"),
    ("ab_beta", lambda value: value >= 0, "0 or greater"),
    ("checkpoint_interval", lambda value: value >= 1, "at least 1"),
    ("seed", lambda value: 0 <= value < 2**31, "between 0 and 2147483647"),
)


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
        """(name, value, source) for the parameter table; advanced ones only where they differ from the default."""
        values = self.as_dict()
        shown = [name for name in values if name in declared.core_names() or values[name] != declared.default(name)]
        replaced = {name: f"not used, {path} wins" for name, path in NAME_AND_PATH if values[path] is not None}
        return [(name, values[name], replaced.get(name, self.sources[name])) for name in shown]


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
    layers = [base] if base is not None else []
    if preset is not None:
        layers.append(Layer(f"preset {preset}", read_preset(preset)))
    if config_file is not None:
        layers.append(Layer(f"file {config_file.name}", read_yaml_mapping(config_file, "configuration file")))
    notes: list[str] = []
    if environment is not None:
        layers.append(Layer("environment", _from_environment(environment, notes)))
    layers.append(Layer(explicit_label, dict(explicit or {})))

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
    _check_conflicts(values, sources, notes)
    return ResolvedConfig(Parameters(**values), sources, tuple(notes))


def check_known_name(name: str, where: str, known: Iterable[str] | None = None) -> None:
    """Raise UsageError with a guess if `name` is no parameter."""
    names = list(known if known is not None else declared.fields())
    if name in names:
        return
    near = difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.6)
    guess = f"did you mean {near[0]!r}?" if near else "see: distillkit params"
    raise UsageError(f"unknown parameter {name!r} ({where})", hint=guess)


@functools.cache
def _adapter(name: str) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(declared.types()[name], config=pydantic.ConfigDict(coerce_numbers_to_str=True))


def _is_optional(name: str) -> bool:
    return type(None) in typing.get_args(declared.types()[name])


def _wanted(name: str) -> str:
    choices = declared.choices(name)
    if choices:
        return "one of " + ", ".join(choices)
    kind = declared.types()[name]
    if isinstance(kind, python_types.UnionType):
        kind = next(member for member in typing.get_args(kind) if member is not type(None))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return words.get(kind, "a mapping")


def coerce(name: str, value: Any, where: str) -> Any:
    """`value` as the declared type: `"5e-5"` becomes a float, `"100"` an int, `""` or `"none"` None where allowed.

    Raises:
        UsageError: it cannot be.
    """
    if _is_optional(name) and (value is None or (isinstance(value, str) and value.lower() in ("", "none", "null"))):
        return None
    wants_bool = declared.types()[name] is bool
    try:
        if isinstance(value, bool) != wants_bool and isinstance(value, bool | float | int):
            # pydantic would read `true` as 1, and 1 as true.
            raise ValueError
        if isinstance(value, str):
            value = value if declared.choices(name) == () else value.strip()
            if not value.strip():
                raise ValueError
        return _adapter(name).validate_python(value)
    except ValueError as error:
        choices = declared.choices(name)
        near = difflib.get_close_matches(str(value), choices, n=1) if choices else []
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            f"{name}: {value!r} is not {_wanted(name)} ({where}){guess}", hint=f"see: distillkit params {name}"
        ) from error


def _from_environment(environment: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    known = {
        ENVIRONMENT_PREFIX + name.upper(): name for name in declared.fields() if declared.facts(name).on_command_line
    }
    found: dict[str, str] = {}
    for variable, value in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES:
            continue
        if variable in known:
            found[known[variable]] = value
        else:
            near = difflib.get_close_matches(variable, list(known), n=1)
            notes.append(f"{variable} is no parameter and is ignored" + (f"; did you mean {near[0]}?" if near else ""))
    return found


# A path that is given wins over the name.
NAME_AND_PATH = (
    ("teacher_model", "teacher_model_path"),
    ("student_model", "student_model_path"),
    ("dataset", "dataset_path"),
)


def _settle_paths(
    values: dict[str, Any], sources: dict[str, str], rank: dict[str, int], *, settled: int | None
) -> None:
    """A path wins over a name; a name from a higher layer wins over a path from a lower one; both at once conflict.

    The layer `settled` is a whole configuration, names and paths alike: there the path has won already.
    """
    for name, path in NAME_AND_PATH:
        if values[path] is None or rank[name] < 0 or rank[name] == rank[path] == settled:
            continue
        if rank[name] == rank[path]:
            raise UsageError(
                f"{name} and {path} are both given ({sources[path]}): {values[name]!r} and {values[path]!r}",
                hint=f"give only one of {declared.flag(name)} and {declared.flag(path)}",
            )
        if rank[name] > rank[path]:
            values[path], sources[path] = None, f"{DERIVED} ({name} was given)"


def _settle_weights(values: dict[str, Any], sources: dict[str, str], rank: dict[str, int]) -> None:
    """Giving only one of alpha and beta sets the other to 1 minus it."""
    for given, other in (("alpha", "beta"), ("beta", "alpha")):
        if rank[given] > rank[other]:
            values[other], sources[other] = round(1 - values[given], 12), f"{DERIVED} (1 - {given})"


def _check_values(values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(
                f"{name}: {value} is not a finite number ({sources[name]})", hint=f"use {declared.flag(name)}"
            )
    for name, possible, wanted in _IMPOSSIBLE:
        value = values[name]
        if value is not None and not possible(value):
            raise UsageError(
                f"{name}: {declared.number_words(value)} is impossible, it must be {wanted} ({sources[name]})",
                hint=f"documented range: {declared.range_words(name)}",
            )
    if abs(values["alpha"] + values["beta"] - 1) > 1e-6:
        raise UsageError(
            f"alpha + beta must be 1, but alpha is {values['alpha']:g} ({sources['alpha']}) "
            f"and beta is {values['beta']:g} ({sources['beta']})",
            hint="give only one of --alpha and --beta; the other one follows",
        )
    if values["allow_out_of_range"]:
        return
    for name, value in values.items():
        facts = declared.facts(name)
        if value is None or facts.low is None or facts.high is None or facts.low <= value <= facts.high:
            continue
        raise UsageError(
            f"{name}: {declared.number_words(value)} is outside its range {declared.range_words(name)} ({sources[name]})",
            hint=f"choose {declared.flag(name)} within the range, or lift the limit with --allow-out-of-range",
        )


def _check_conflicts(values: dict[str, Any], sources: Mapping[str, str], notes: list[str]) -> None:
    if values["folder_name"] is not None:
        check_folder_name(values["folder_name"])
    user_path(values["output_dir"], "output_dir")
    if values["no_cuda"] and values["precision"] == "fp16":
        raise UsageError(
            "--no-cuda and --precision fp16 exclude each other: fp16 training needs a GPU",
            hint="use --precision auto, bf16 or fp32",
        )
    if values["skip_validation"] and values["quality_gate"] == "improved":
        raise UsageError(
            "--skip-validation and --quality-gate improved exclude each other: the gate is part of the validation",
            hint="leave one of them out",
        )
    problem = sparse_problem(values)
    if values["box_type"] == "white" and values["teacher_cache"] == "sparse" and problem is not None:
        raise UsageError(
            f"--teacher-cache sparse and {problem} exclude each other: sparse targets are true to the forward KL alone",
            hint="use --teacher-cache exact",
        )
    if values["box_type"] == "white" and values["teacher_cache"] == "off" and values["teacher_streaming"] == "on":
        raise UsageError(
            "--teacher-cache off and --teacher-streaming on exclude each other: what a teacher block by block computes "
            "has to be kept",
            hint="use --teacher-cache exact or sparse, or leave it at auto",
        )
    _note_unused(values, sources, notes)


# Parameters that only some choices use: (name, who uses it, whether that is so).
_USED_BY = (
    ("alignment", "white box", lambda values: values["box_type"] == "white"),
    ("divergence", "white box with --alignment auto, bpm or strict", lambda values: _has_divergence(values)),
    ("temperature", "white box except --alignment alm", lambda values: values["box_type"] == "white" and values["alignment"] != "alm"),
    ("teacher_streaming", "white box", lambda values: values["box_type"] == "white"),
    ("teacher_precision", "white box", lambda values: values["box_type"] == "white"),
    ("sparse_method", "--teacher-cache sparse", lambda values: _may_be_sparse(values)),
    ("sparse_size", "--teacher-cache sparse", lambda values: _may_be_sparse(values)),
    ("prefix_map", "--alignment auto or bpm in white box", lambda values: values["box_type"] == "white" and values["alignment"] in ("auto", "bpm")),
    ("divergence_mix", "--divergence jsd, skew-kl or skew-reverse-kl", lambda values: _has_divergence(values) and values["divergence"] in ("jsd", "skew-kl", "skew-reverse-kl")),
    ("ab_alpha", "--divergence alpha-beta", lambda values: _has_divergence(values) and values["divergence"] == "alpha-beta"),
    ("ab_beta", "--divergence alpha-beta", lambda values: _has_divergence(values) and values["divergence"] == "alpha-beta"),
)  # fmt: skip


def sparse_problem(values: Mapping[str, Any]) -> str | None:
    """Why sparse targets cannot stand in for the teacher; None if they can."""
    if values["alignment"] in ("alm", "uld"):
        return f"--alignment {values['alignment']}"
    if values["divergence"] != "forward-kl":
        return f"--divergence {values['divergence']}"
    return None


def _may_be_sparse(values: Mapping[str, Any]) -> bool:
    wanted = values["teacher_cache"] in ("sparse", "auto")
    return values["box_type"] == "white" and wanted and sparse_problem(values) is None


def _has_divergence(values: Mapping[str, Any]) -> bool:
    return values["box_type"] == "white" and values["alignment"] in ("auto", "bpm", "strict")


def _note_unused(values: Mapping[str, Any], sources: Mapping[str, str], notes: list[str]) -> None:
    """Say so where a parameter that was given has no effect."""
    for name, users, used in _USED_BY:
        if sources[name] != DEFAULT and values[name] != getattr(_DEFAULTS, name) and not used(values):
            notes.append(f"{name} has no effect here: it is used by {users}")
