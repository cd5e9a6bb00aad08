"""The teacher pass and the training in the processes that do not lead: student, texts and teacher are those that process 0
has, from what it has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.data.stored_rows import Rows
from distillkit.processes.group import Group
from distillkit.run.context import TrainingContext
from distillkit.run.directory import RunDirectory
from distillkit.settings.parameters import Parameters
from distillkit.teachers.open_sparse import fill_sparse_part
from distillkit.teachers.protocol import TeacherSource
from distillkit.training.decisions import TeacherChoice
from distillkit.training.inputs import decided_before, teacher_part, teaching_loader, true_texts
from distillkit.training.mixed_teachers import OneOfSeveral, further_loader
from distillkit.training.session import Training, TrainingPlace


def train(values: dict[str, Any], group: Group, console: Console) -> None:
    """Take part in a training.

    Args:
        values: of `Training.for_others`.
    """
    context = _context(values, console)
    rows, source = _texts(context, values)
    checkpoint = values["checkpoint"]
    training = Training(
        context, source, rows, TrainingPlace(Path(values["place"])), Path(checkpoint) if checkpoint else None,
        values["fingerprint"], start_score=values["start_score"],
    )  # fmt: skip
    training.run(context.pair.load_student(console), console, group)


def _texts(context: TrainingContext, values: dict[str, Any]) -> tuple[Rows, TeacherSource | None]:
    if values["texts"] == "true":
        return true_texts(context), None
    choice = values["teacher"]
    return teacher_part(context, decided_before(context, None if choice is None else TeacherChoice(**choice)))


def teacher_pass(values: dict[str, Any], group: Group, console: Console) -> None:
    """Compute some shards of the teacher's cache.

    Args:
        values: of `TeacherLoader.share`.
    """
    first, choice = _context(values, console), TeacherChoice(**values["teacher"])
    teacher = _teacher(first, choice, values["number"])
    loader, shards = teacher.loader, group.part(values["shards"])
    if choice.cache == "exact" and shards:
        loader.fill_part(shards)
    elif shards:
        fill_sparse_part(teacher.context, loader, teacher.rows, shards)
    group.meet()
    loader.forget()


def _teacher(context: TrainingContext, choice: TeacherChoice, number: int) -> OneOfSeveral:
    """A teacher of the run, from 1."""
    if number > 1:
        return further_loader(context, number, choice.fingerprint)
    decided = decided_before(context, choice)
    return OneOfSeveral(context, decided.rows, teaching_loader(context, decided))


def _context(values: dict[str, Any], console: Console) -> TrainingContext:
    return TrainingContext.open(Parameters(**values["config"]), RunDirectory.open(Path(values["run"])), console)
