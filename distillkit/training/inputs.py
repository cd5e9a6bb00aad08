"""What a training reads: the texts, and in white box the source of the teacher's targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distillkit.data.examples import load_examples
from distillkit.data.training_rows import Row, true_rows, white_box_rows
from distillkit.run.context import TrainingContext, needs_teacher
from distillkit.run.pair import student_parameters
from distillkit.storage import bytes_below, free_disk_bytes
from distillkit.teachers.black_box import generated_rows
from distillkit.teachers.loader import TeacherLoader
from distillkit.teachers.protocol import TeacherSource
from distillkit.teachers.sources import open_source, remember_choice, remembered_choice
from distillkit.training.control import settled_control
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
    config = context.config
    if uses_white_box_teacher(config):
        loader = white_box_loader(context)
        decision = decide_teacher(config, loader.facts(), remembered_choice(_cache_note(context)))
        loader.streaming = decision.streaming
        _check_disk(context, decision)
        return Decided(list(loader.rows), loader, decision)
    _check_disk(context, None)
    if config.box_type == "black" and config.beta == 0:
        return Decided([])
    return Decided(true_texts(context))


def true_texts(context: TrainingContext) -> list[Row]:
    """The texts of the data set, for a training in which the teacher has no part."""
    stored = load_examples(context.run.data / "train")
    return true_rows(stored, first_target=_first_target(context))


def white_box_loader(context: TrainingContext) -> TeacherLoader:
    """The white-box teacher of a run and the rows that it reads; nothing is loaded, nor decided, yet."""
    stored = load_examples(context.run.data / "train")
    rows = white_box_rows(
        stored, first_target=_first_target(context), identical=bool(context.pair.same_tokenizer) and context.pairs_rows,
        start_shift=context.encoders.start_shift,
    )  # fmt: skip
    return TeacherLoader(context, rows)


def _first_target(context: TrainingContext) -> int:
    return 0 if context.encoders.student.start_id is None else 1


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
    run, settled = context.run, settled_control(context.config)
    control = settled is not None and settled.on
    free = free_disk_bytes(run.path) + bytes_below(run.checkpoints) + (bytes_below(run.control) if control else 0)
    decide_disk(context.config, run.path, free, student_parameters(context.pair), decision, control=control)
