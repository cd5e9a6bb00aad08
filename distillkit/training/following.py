"""A training in the processes that do not lead: the same student, texts and teacher, from what process 0 has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.data.stored_rows import Rows
from distillkit.processes.group import Group
from distillkit.run.context import TrainingContext
from distillkit.run.directory import RunDirectory
from distillkit.settings.parameters import Parameters
from distillkit.teachers.protocol import TeacherSource
from distillkit.training.decisions import TeacherChoice
from distillkit.training.inputs import decided_before, teacher_part, true_texts
from distillkit.training.session import Training, TrainingPlace


def train(values: dict[str, Any], group: Group, console: Console) -> None:
    """Take part in a training.

    Args:
        values: of `Training.for_others`.
    """
    context = TrainingContext.open(Parameters(**values["config"]), RunDirectory.open(Path(values["run"])), console)
    rows, source = _texts(context, values)
    checkpoint = values["checkpoint"]
    training = Training(
        context, source, rows, TrainingPlace(Path(values["place"])), Path(checkpoint) if checkpoint else None,
        values["fingerprint"],
    )  # fmt: skip
    training.run(context.pair.load_student(console), console, group)


def _texts(context: TrainingContext, values: dict[str, Any]) -> tuple[Rows, TeacherSource | None]:
    if values["texts"] == "true":
        return true_texts(context), None
    choice = values["teacher"]
    return teacher_part(context, decided_before(context, None if choice is None else TeacherChoice(**choice)))
