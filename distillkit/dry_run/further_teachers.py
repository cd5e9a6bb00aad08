"""The further teachers of a plan: what each is, and what the run would decide of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distillkit.device.precision import Compute
from distillkit.dry_run.inputs import Amounts, PlannedModels, find_model, planned_context, shape_of, teacher_facts
from distillkit.errors import DistillkitError
from distillkit.models.references import parse_reference
from distillkit.models.shape import ModelShape
from distillkit.run.further_teachers import KEY, further_of
from distillkit.settings.conditions import has_several_teachers
from distillkit.settings.parameters import Parameters
from distillkit.settings.teacher_values import extra_names
from distillkit.storage import read_json
from distillkit.teachers.choices import TeacherFacts
from distillkit.training.decisions import uses_white_box_teacher
from distillkit.training.mixed_teachers import beside


@dataclass(frozen=True)
class PlannedTeacher:
    """One of them.

    Attributes:
        name: as the user named it.
        shape: its size; None where that is not known.
        facts: what its decisions depend on; None likewise, and where it has no part in the training.
        amounts: the texts as it reads them.
    """

    name: str
    shape: ModelShape | None
    facts: TeacherFacts | None
    amounts: Amounts


def planned_teachers(
    config: Parameters, compute: Compute, folder: Path, models: PlannedModels, amounts: Amounts
) -> list[PlannedTeacher]:
    """The teachers besides the first; [] where there are none.

    Args:
        folder: the run directory, which need not be there.
        models: student and first teacher.
        amounts: the texts as these read them.
    """
    if not has_several_teachers(vars(config)):
        return []
    return [
        _planned(config, compute, folder, models, amounts, name, number)
        for number, name in enumerate(extra_names(config.extra_teachers), 2)
    ]


def _planned(
    config: Parameters, compute: Compute, folder: Path, models: PlannedModels, amounts: Amounts, name: str, number: int
) -> PlannedTeacher:
    located = find_model(parse_reference(name, role="extra"), config, "teacher")
    shape, own, facts = shape_of(located), amounts, None
    told = _told(folder, number) if amounts.exact else None
    if told is not None:
        own = replace(amounts, teacher_tokens=int(told["stats"]["teacher_tokens"]["train"]))
    if shape is not None and uses_white_box_teacher(config):
        context = planned_context(config, compute, folder, models) if told is not None else None
        if context is not None and told is not None and located is not None:
            with contextlib.suppress(DistillkitError, OSError):  # The run itself says what is wrong with it.
                teacher = further_of(context.pair, located, number, told["stats"], config)
                facts = beside(context, teacher, str(told["model"]["fingerprint"])).loader.facts()
        if facts is None:
            guessed = replace(models, teacher=located, teacher_shape=shape)
            facts = teacher_facts(config, compute, folder, guessed, replace(own, exact=False))
            assert facts is not None
            facts = replace(facts, memory=replace(facts.memory, name=name))
    return PlannedTeacher(name, shape, facts, own)


def _told(folder: Path, number: int) -> Mapping[str, Any] | None:
    """What the prepared data tell of a teacher; None where they were prepared without it."""
    try:
        models, stats = (read_json(folder / "data" / f"{name}.json")[KEY] for name in ("models", "stats"))
        return {"model": models[number - 2], "stats": stats[number - 2]}
    except (OSError, ValueError, KeyError, IndexError):
        return None


def all_facts(first: TeacherFacts | None, further: Sequence[PlannedTeacher]) -> list[TeacherFacts] | None:
    """Those of all teachers; None where one of them is not known."""
    known = [first, *(teacher.facts for teacher in further)]
    return None if any(facts is None for facts in known) else [facts for facts in known if facts is not None]
