"""The declaration of the parameters, asked by name: what kind of values one takes, how it is spelled, where it is listed."""

from __future__ import annotations

import dataclasses
import functools
import types as python_types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from distillkit.settings.facts import ParameterFacts
from distillkit.settings.parameters import Parameters

ENVIRONMENT_PREFIX = "DISTILLKIT_"
GROUPS = ("models", "data", "distillation", "training", "output", "extras", "advanced")
# What the advanced ones are about: the headings under which they are listed.
TOPICS = (
    "student", "teacher", "server", "answers", "chat", "texts", "loss", "course", "sampling", "measuring",
    "machine", "limits",
)  # fmt: skip


@functools.cache
def fields() -> dict[str, dataclasses.Field[Any]]:
    """Every declared field by name, in the order of the declaration."""
    return {field.name: field for field in dataclasses.fields(Parameters)}


@functools.cache
def types() -> Mapping[str, Any]:
    """The type of every parameter by name."""
    return typing.get_type_hints(Parameters)


def facts(name: str) -> ParameterFacts:
    """The `ParameterFacts` of one parameter; KeyError for an unknown name."""
    return fields()[name].metadata["facts"]


def default(name: str) -> Any:
    """The default value of one parameter."""
    field = fields()[name]
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def choices(name: str) -> tuple[str, ...]:
    """The closed set of values of a parameter, empty where it is open."""
    table = facts(name).choices
    if table is not None:
        return tuple(table)
    return typing.get_args(types()[name]) if typing.get_origin(types()[name]) is Literal else ()


def kind(name: str) -> Any:
    """The type of the values of a parameter, without the None of optional ones: int, float, bool, str, a Literal, …"""
    annotation = types()[name]
    if not isinstance(annotation, python_types.UnionType):
        return annotation
    return next(member for member in typing.get_args(annotation) if member is not type(None))


def is_optional(name: str) -> bool:
    """Whether None is a value of the parameter."""
    return isinstance(types()[name], python_types.UnionType)


def argument_type(name: str) -> Any:
    """The type of the parameter as an argument in Python: closed choices as a Literal, a Path where a text may be one."""
    if choices(name):
        return Literal[choices(name)]
    return types()[name] | Path if facts(name).takes_path else types()[name]


def flag(name: str) -> str:
    """`sample_size` -> `--sample-size`."""
    return "--" + name.replace("_", "-")


def spelled(name: str) -> str:
    """The parameter as a message names it: its flag, or where it has none the name that configuration files use."""
    return flag(name) if facts(name).on_command_line else name


def flags(name: str) -> tuple[str, ...]:
    """The flag of a parameter, and for yes-or-no its opposite; () for what has no flag."""
    if not facts(name).on_command_line:
        return ()
    if kind(name) is not bool:
        return (flag(name),)
    return (flag(name), facts(name).opposite_flag or flag(name).replace("--", "--no-", 1))


def environment_variable(name: str) -> str | None:
    """`sample_size` -> `DISTILLKIT_SAMPLE_SIZE`; None for a mapping, which a variable cannot express."""
    return None if typing.get_origin(types()[name]) is dict else ENVIRONMENT_PREFIX + name.upper()


def number_words(value: float) -> str:
    """`5e-05` -> `5e-5`, `50000` -> `50000`: as one can type it."""
    if isinstance(value, int):
        return str(value)
    mantissa, exponent, power = f"{value:g}".partition("e")
    return f"{mantissa}e{int(power)}" if exponent else mantissa


def range_words(name: str) -> str:
    """`1–128`, or "" where there is no documented range."""
    low, high = facts(name).low, facts(name).high
    return "" if low is None or high is None else f"{number_words(low)}–{number_words(high)}"


def sections() -> dict[str, tuple[str, ...]]:
    """The headings of a listing, groups and then the topics of the advanced parameters, each with its parameters."""
    headings = [*(group for group in GROUPS if group != "advanced"), *TOPICS]
    return {
        heading: tuple(name for name in fields() if heading in (facts(name).group, facts(name).topic))
        for heading in headings
    }


def is_advanced(name: str) -> bool:
    """Whether `distill_models()` makes no promise of it, and the short help leaves it out."""
    return facts(name).group == "advanced"


def core_names() -> tuple[str, ...]:
    """The parameters that `distill_models()` promises, without the advanced ones."""
    return tuple(name for name in fields() if not is_advanced(name))


def names_with_flag() -> tuple[str, ...]:
    """Every parameter that has an option on the command line, in the order of the declaration."""
    return tuple(name for name in fields() if facts(name).on_command_line)


def replacements() -> dict[str, str]:
    """Parameter to the one that wins over it: `teacher_model` -> `teacher_model_path`."""
    return {name: winner for name in fields() if (winner := facts(name).replaced_by) is not None}


def complements() -> dict[str, str]:
    """Parameter to the one that is 1 minus it, in both directions."""
    return {name: other for name in fields() if (other := facts(name).complement) is not None}


def location_names() -> tuple[str, ...]:
    """The parameters that say where a run lies; results do not depend on them."""
    return tuple(name for name in fields() if facts(name).location is not None)
