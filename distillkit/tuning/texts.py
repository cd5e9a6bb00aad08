"""What all trials of a search train on: the texts of the run, and its teacher, whose part is computed once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from distillkit.data.stored_rows import Rows
from distillkit.run.context import TrainingContext, needs_teacher
from distillkit.teachers.choices import CacheChoice, choose_streaming, disk_problem
from distillkit.teachers.protocol import TeacherSource
from distillkit.teachers.sources import open_source
from distillkit.training.decisions import tunes_teacher, uses_white_box_teacher
from distillkit.training.inputs import decide, planned_loader, teacher_part, tuned_loader, white_box_texts
from distillkit.training.teacher_tuning import TeacherTuning
from distillkit.tuning.trial import Trials


def open_trials(context: TrainingContext, folder: Path) -> Trials:
    """The trials of a run; the teacher's cache, or its writing, is completed first.

    Args:
        folder: an existing folder.

    Raises:
        Interrupted: a signal arrived during the teacher's part; what is done stays.
        DistillkitError: the disk is full, or the teacher gives no numbers.
    """
    if uses_white_box_teacher(context.config) and context.config.extra_teachers is not None:
        # From exact caches, as with one teacher; where one cannot be cached the error says so.
        exact = dataclasses.replace(context, config=dataclasses.replace(context.config, teacher_cache="exact"))
        return Trials(context, *teacher_part(exact, decide(exact)), folder)
    if uses_white_box_teacher(context.config) and not context.pair.teacher.is_served:
        return Trials(context, *_with_teacher(context), folder)
    config = context.config
    if config.box_type == "black" and needs_teacher(config):
        # Both kinds of texts, the true ones too where the configuration gives them no weight: some trials do.
        config = dataclasses.replace(config, alpha=0.5, beta=0.5)
    both = dataclasses.replace(context, config=config)
    return Trials(context, *teacher_part(both, decide(both)), folder)


def _with_teacher(context: TrainingContext) -> tuple[Rows, TeacherSource]:
    """White box: from the exact cache every temperature, divergence and alignment follows."""
    exact = dataclasses.replace(context, config=dataclasses.replace(context.config, teacher_cache="exact"))
    rows = white_box_texts(exact)
    tuning = TeacherTuning(exact, rows) if tunes_teacher(exact.config) else None
    loader, _ = planned_loader(exact, rows, tuning)
    facts = loader.facts()
    loader = tuned_loader(exact, loader, tuning, choose_streaming(exact.config, facts.memory))
    problem = "its head is more than a linear layer on its last hidden states"
    if facts.head_is_plain:
        problem = disk_problem(facts, loader.streaming)
    if problem is None:
        return rows, open_source(exact, loader, CacheChoice("exact", "all trials read it"))
    context.console.warn(f"the teacher cannot be cached, it runs again in every trial: {problem}")
    return rows, open_source(context, loader, CacheChoice("off", problem))
