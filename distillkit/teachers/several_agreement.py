"""How closely the students of a run follow its teachers together, on the held-out texts: all of them in memory, if they fit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

import numpy as np
from torch import nn

from distillkit.console import Console, format_bytes
from distillkit.data.stored_rows import StoredRows, TakenRows
from distillkit.device.precision import Compute
from distillkit.evaluation.agreement import Agreement
from distillkit.evaluation.comparison import ComparedText
from distillkit.evaluation.mixed_agreement import MixedTeacher, mixed_agreement
from distillkit.run.directory import RunDirectory
from distillkit.run.further_teachers import FurtherTeacher, further_rows, open_further
from distillkit.run.pair import ModelPair
from distillkit.settings.parameters import Parameters
from distillkit.settings.teacher_values import teacher_weights
from distillkit.teachers.choices import USABLE_MEMORY, choose_streaming
from distillkit.teachers.followed_texts import compared_texts, teacher_log_target
from distillkit.teachers.spread import place_teacher, teacher_memory


def several_agreement(
    config: Parameters,
    run: RunDirectory,
    pair: ModelPair,
    students: Mapping[str, Callable[[], nn.Module]],
    student_bytes: int,
    test: StoredRows,
    compute: Compute,
    console: Console,
) -> dict[str, Agreement]:
    """Each student beside the mixture; {} where not everything fits into memory, which is said.

    Args:
        students: how each is loaded, on the device that computes.
        student_bytes: of one of them.

    Raises:
        PreconditionError: a teacher is not the model that the data were prepared for.
        DistillkitError: a divergence is no number.
        Interrupted: a signal arrived.
    """
    others = open_further(pair, config, run, console)
    pairs = [pair, *(other.pair for other in others)]
    memories = [teacher_memory(one, compute) for one in pairs]
    needed, free = sum(one.weight_bytes for one in memories) + len(students) * student_bytes, memories[0].free_bytes
    if needed > USABLE_MEMORY * free or any(choose_streaming(config, one).on for one in memories):
        console.info(
            f"how closely the student follows the teachers together is not measured: all of them in memory take "
            f"{format_bytes(needed)}, {format_bytes(free)} are free"
        )
        return {}
    encoders = [pair.text_encoders(config), *(other.encoders for other in others)]
    first = compared_texts(test, encoders[0], bool(pair.same_tokenizer)) or [None] * len(test)
    texts = [first, *(_further_texts(run, other) for other in others)]
    teachers = [
        MixedTeacher(
            place_teacher(one, compute.teacher, compute, console), weight, of_one,
            teacher_log_target(own, compute.device, bool(one.same_tokenizer)),
        )
        for one, weight, of_one, own in zip(pairs, teacher_weights(config), texts, encoders, strict=True)
    ]  # fmt: skip
    with console.progress("comparing with the teachers", total=len(test), unit="texts") as progress:
        found = mixed_agreement(
            teachers, {name: load() for name, load in students.items()}, device=compute.device,
            autocast_dtype=compute.autocast, progress=progress,
        )  # fmt: skip
    del teachers
    gc.collect()
    return found


def _further_texts(run: RunDirectory, teacher: FurtherTeacher) -> list[ComparedText | None]:
    """The texts as a further teacher reads them; None for those that it does not read."""
    rows = further_rows(run.data, teacher.number, "test")
    read = np.flatnonzero(rows.numbers("teacher_tokens")).tolist()
    texts = compared_texts(TakenRows(rows, read), teacher.encoders, teacher.same_tokenizer)
    found: list[ComparedText | None] = [None] * len(rows)
    for index, text in zip(read, texts or [None] * len(read), strict=True):
        found[index] = text
    return found
