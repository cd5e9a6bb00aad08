"""What a training reads: the texts, and in white box the source of the teacher's targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distillkit.data.examples import load_examples
from distillkit.data.training_rows import Row, true_rows, white_box_rows
from distillkit.run.context import TrainingContext, needs_teacher, needs_true_texts
from distillkit.run.pair import student_parameters
from distillkit.storage import files_below, free_disk_bytes
from distillkit.teachers.black_box import generated_rows
from distillkit.teachers.loader import TeacherLoader
from distillkit.teachers.protocol import TeacherSource
from distillkit.teachers.sources import open_source, remember_choice, remembered_choice
from distillkit.training.decisions import TeacherDecision, decide_disk, decide_teacher, uses_white_box_teacher


@dataclass(frozen=True)
class Decided:
    """What is decided before anything large is loaded.

    Attributes:
        rows: the texts of the data set, as they are trained on; none where only the teacher's are.
        loader: of a white-box teacher; None where the teacher's distributions have no part.
        teacher: how that teacher is had; None likewise.
    """

    rows: list[Row]
    loader: TeacherLoader | None = None
    teacher: TeacherDecision | None = None


def decide(context: TrainingContext) -> Decided:
    """Decide how the teacher is had, and refuse to begin what cannot be finished.

    Raises:
        DistillkitError: the disk is too small.
        PreconditionError, UsageError: what was asked for is not possible with this teacher.
    """
    config, same = context.config, bool(context.pair.same_tokenizer)
    stored = load_examples(context.run.data / "train")
    first_target = 0 if context.encoders.student.start_id is None else 1
    if uses_white_box_teacher(config):
        rows = white_box_rows(
            stored, first_target=first_target, identical=same and context.pairs_rows,
            start_shift=context.encoders.start_shift,
        )  # fmt: skip
        loader = TeacherLoader(context, rows)
        decision = decide_teacher(config, loader.facts(), remembered_choice(_cache_note(context)))
        loader.streaming = decision.streaming
        _check_disk(context, decision)
        return Decided(rows, loader, decision)
    _check_disk(context, None)
    if config.box_type == "black" and not needs_true_texts(config):
        return Decided([])
    return Decided(true_rows(stored, first_target=first_target))


def _cache_note(context: TrainingContext) -> Path:
    """Where `auto` notes which cache it chose, so that a run that resumes does not choose otherwise."""
    return context.run.teacher / "cache.json"


def teacher_part(context: TrainingContext, decided: Decided) -> tuple[list[Row], TeacherSource | None]:
    """The rows to train on, and in white box the source of the teacher's targets."""
    config, console = context.config, context.console
    if decided.loader is not None and decided.teacher is not None:
        if config.teacher_cache == "auto":
            remember_choice(_cache_note(context), decided.teacher.cache, console)
        return decided.rows, open_source(context, decided.loader, decided.teacher.cache)
    if config.box_type == "white":
        console.info("alpha is 0: the teacher is not needed, this is plain fine-tuning")
        return decided.rows, None
    if not needs_teacher(config):
        console.info("alpha is 0: the teacher does not write anything, this is plain fine-tuning")
        return decided.rows, None
    return decided.rows + generated_rows(context, load_examples(context.run.data / "train")), None


def _check_disk(context: TrainingContext, decision: TeacherDecision | None) -> None:
    """Refuse to begin what cannot be finished."""
    run = context.run
    existing = sum(path.stat().st_size for path in files_below(run.checkpoints)) if run.checkpoints.is_dir() else 0
    free = free_disk_bytes(run.path) + existing
    decide_disk(context.config, run.path, free, student_parameters(context.pair), decision)
