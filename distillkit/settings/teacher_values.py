"""Values of the options for several teachers: their names, and what each counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distillkit.errors import UsageError
from distillkit.settings.conditions import IMPORTED, SERVED, has_several_teachers
from distillkit.settings.parameters import Parameters


def extra_names(value: str | None) -> tuple[str, ...]:
    """The models that a value of `extra_teachers` names, in their order; () for none."""
    return () if value is None else tuple(name.strip() for name in value.split(","))


def check_extra_teachers(value: str, where: str) -> None:
    """Refuse what names no further teacher whose weights can be here.

    Args:
        value: of `extra_teachers`.
        where: where it came from, for the message.

    Raises:
        UsageError: a name is empty, or that of a student, of a server's model or of imported log-probabilities.
    """
    for name in extra_names(value):
        if not name:
            raise UsageError(
                f"extra_teachers: {value!r} has an empty name ({where})",
                hint="write MODEL,MODEL: Hub ids, folders or .gguf files whose names have no comma",
            )
        if name.startswith((SERVED, IMPORTED)):
            raise UsageError(
                f"extra_teachers: {name[:200]!r} cannot be one of several teachers ({where}): its whole distributions are not "
                "here, only its likeliest tokens",
                hint="name models whose weights are here: Hub ids, folders or .gguf files",
            )
        if name.startswith("teacher:"):
            raise UsageError(f"extra_teachers: {name[:200]!r} is a student ({where})", hint="name a model")


def given_weights(value: str) -> tuple[float, ...]:
    """`teacher_weights` as numbers.

    Raises:
        ValueError: one of them is no positive number.
    """
    weights = tuple(float(part) for part in value.split(","))
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError("a weight is not above 0")
    return weights


def check_teacher_weights(value: str, where: str) -> None:
    """Refuse what is no list of positive numbers.

    Args:
        value: of `teacher_weights`.
        where: where it came from, for the message.

    Raises:
        UsageError: it is none.
    """
    try:
        given_weights(value)
    except ValueError as error:
        raise UsageError(
            f"teacher_weights: {value!r} is no list of numbers above 0 ({where})",
            hint="write one number for each teacher, that of teacher_model first, such as 0.7,0.3",
        ) from error


def check_counts(values: Mapping[str, Any]) -> None:
    """Refuse weights that are not as many as the teachers.

    Args:
        values: of a whole configuration, by name.

    Raises:
        UsageError: they are fewer or more.
    """
    if values["teacher_weights"] is None or values["extra_teachers"] is None:
        return
    weights, teachers = len(given_weights(values["teacher_weights"])), 1 + len(extra_names(values["extra_teachers"]))
    if weights != teachers:
        raise UsageError(
            f"--teacher-weights has {weights} number{'' if weights == 1 else 's'}, and there are {teachers} teachers",
            hint="give one for each: that of --teacher-model first, then those of --extra-teachers in their order",
        )


def teacher_weights(config: Parameters) -> tuple[float, ...]:
    """What each teacher of a run counts, the first one first; they add up to 1. All the same where nothing else is said."""
    if not has_several_teachers(vars(config)):
        return (1.0,)
    count = 1 + len(extra_names(config.extra_teachers))
    given = (1.0,) * count if config.teacher_weights is None else given_weights(config.teacher_weights)
    return tuple(weight / sum(given) for weight in given)
