"""What a training reads: the texts, and in white box the source of the teacher's targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distillkit.data.examples import load_examples
from distillkit.data.stored_rows import JoinedRows, Rows, StoredRows
from distillkit.data.training_rows import true_rows, white_box_rows
from distillkit.processes.taking_part import process_count
from distillkit.run.context import TrainingContext, needs_teacher, needs_true_texts
from distillkit.run.student_size import student_size
from distillkit.settings.conditions import is_on_policy
from distillkit.storage import bytes_below, free_disk_bytes
from distillkit.teachers.black_box import generated_rows
from distillkit.teachers.choices import CacheChoice, StreamingChoice
from distillkit.teachers.imported_targets import open_imported
from distillkit.teachers.live import LiveTeacher
from distillkit.teachers.loader import TeacherLoader
from distillkit.teachers.protocol import TeacherSource
from distillkit.teachers.served_targets import open_served
from distillkit.teachers.sources import LiveSource, open_source, remember_choice, remembered_choice
from distillkit.training.control import settled_control
from distillkit.training.decisions import (
    TeacherChoice,
    TeacherDecision,
    TuningFacts,
    check_division,
    decide_disk,
    decide_teachers,
    together,
    tunes_teacher,
    uses_white_box_teacher,
)
from distillkit.training.disk import replaced_bytes
from distillkit.training.mixed_teachers import OneOfSeveral, cache_note, further_loaders, open_mixture
from distillkit.training.on_policy import SourceBesideTeacher
from distillkit.training.teacher_tuning import TeacherTuning


@dataclass(frozen=True)
class Decided:
    """What is decided before anything large is loaded.

    Attributes:
        rows: the texts of the data set, as they are trained on; none where only the teacher's are.
        loader: of a white-box teacher; None where the teacher's distributions have no part.
        teacher: how that teacher is had; None likewise.
        tuning: of that teacher, done or not; None where it teaches as it came.
        others: the teachers besides that one, and how they are had.
    """

    rows: Rows
    loader: TeacherLoader | None = None
    teacher: TeacherDecision | None = None
    tuning: TeacherTuning | None = None
    others: Sequence[tuple[OneOfSeveral, TeacherDecision]] = ()


def decide(context: TrainingContext) -> Decided:
    """Decide how the teacher is had, and refuse to begin what cannot be finished.

    Raises:
        DistillkitError: the disk is too small.
        PreconditionError, UsageError: what was asked for is not possible with this teacher.
    """
    config = context.config
    check_division(config, context.pair.student, process_count())
    if uses_white_box_teacher(config) and context.pair.teacher.is_served:
        _check_disk(context, None)
        return Decided(white_box_texts(context))
    if uses_white_box_teacher(config):
        rows = white_box_texts(context)
        tuning = TeacherTuning(context, rows) if tunes_teacher(config) else None
        loader, still = planned_loader(context, rows, tuning)
        others = further_loaders(context)
        loaders = [loader, *(other.loader for other in others)]
        notes = [remembered_choice(cache_note(context.run.teacher, one.number)) for one in loaders]
        decision, *rest = decisions = decide_teachers(config, [one.facts() for one in loaders], notes, still)
        for one, its in zip(loaders, decisions, strict=True):
            one.streaming = its.streaming
        _check_disk(context, together(decisions))
        return Decided(rows, loader, decision, tuning, list(zip(others, rest, strict=True)))
    _check_disk(context, None)
    if config.box_type == "black" and not needs_true_texts(config):
        return Decided(JoinedRows([]))
    return Decided(true_texts(context))


def decided_before(context: TrainingContext, choice: TeacherChoice | None) -> Decided:
    """What `decide` came to in another process, whose caches, texts and tuned teacher are complete.

    Raises:
        PreconditionError: the tuned teacher is damaged.
    """
    config = context.config
    if choice is None:
        served = uses_white_box_teacher(config)
        if served:
            return Decided(white_box_texts(context))
        only_teachers = config.box_type == "black" and not needs_true_texts(config)
        return Decided(JoinedRows([]) if only_teachers else true_texts(context))
    rows = white_box_texts(context)
    tuning = TeacherTuning(context, rows, choice.fingerprint) if tunes_teacher(config) else None
    loader, _ = planned_loader(context, rows, tuning, choice.fingerprint, prove=False)
    decision = _decision_before(choice.cache, choice.why)
    others = further_loaders(context, [other["fingerprint"] for other in choice.others]) if choice.others else []
    rest = [_decision_before(other["cache"], other["why"]) for other in choice.others]
    return Decided(rows, loader, decision, tuning, list(zip(others, rest, strict=True)))


def _decision_before(cache: str, why: str) -> TeacherDecision:
    # Nothing is missing of its cache, so that nothing will run block by block.
    return TeacherDecision(CacheChoice(cache, why), StreamingChoice(False, "the cache is complete"), 0)


def true_texts(context: TrainingContext) -> StoredRows:
    """The texts of the data set, for a training in which the teacher has no part."""
    stored = load_examples(context.run.data / "train")
    return true_rows(stored, first_target=_first_target(context))


def white_box_texts(context: TrainingContext) -> StoredRows:
    """The texts of the data set as both models of a white-box run read them."""
    stored = load_examples(context.run.data / "train")
    return white_box_rows(
        stored, first_target=_first_target(context), identical=bool(context.pair.same_tokenizer) and context.pairs_rows,
        start_shift=context.encoders.start_shift,
    )  # fmt: skip


def _first_target(context: TrainingContext) -> int:
    return 0 if context.encoders.student.start_id is None else 1


def planned_loader(
    context: TrainingContext,
    rows: Rows,
    tuning: TeacherTuning | None,
    fingerprint: str | None = None,
    *,
    prove: bool = True,
) -> tuple[TeacherLoader, TuningFacts | None]:
    """The loader of the teacher that will teach, and what is to be known of its tuning where that is still to be done: nobody
    can have a cache of such a teacher.

    Args:
        fingerprint: of the teacher as it came; default: computed from its files.
        prove: whether the files of a tuned teacher are compared with what was written.

    Raises:
        PreconditionError: the tuned teacher is damaged.
    """
    if tuning is None:
        return TeacherLoader(context, rows, fingerprint), None
    tuned = tuning.done(prove=prove)
    if tuned is None:
        return TeacherLoader(context, rows, tuning.key), tuning.facts()
    return TeacherLoader(context, rows, tuned.fingerprint, tuned.located), None


def teacher_part(context: TrainingContext, decided: Decided) -> tuple[Rows, TeacherSource | None]:
    """The rows to train on, and in white box the source of the teacher's targets."""
    config, console = context.config, context.console
    if decided.loader is not None and decided.teacher is not None and decided.others:
        first = OneOfSeveral(context, decided.rows, teaching_loader(context, decided))
        choices = [decided.teacher.cache, *(decision.cache for _, decision in decided.others)]
        return decided.rows, open_mixture(context, [first, *(other for other, _ in decided.others)], choices)
    if decided.loader is not None and decided.teacher is not None:
        if config.teacher_cache == "auto":
            remember_choice(cache_note(context.run.teacher, 1), decided.teacher.cache, console)
        loader = teaching_loader(context, decided)
        source = open_source(context, loader, decided.teacher.cache)
        if is_on_policy(vars(config)):
            # Beside it the teacher itself, with counts of its own.
            source = SourceBesideTeacher(source, LiveSource(LiveTeacher(loader.load().model, context.compute)))
        return decided.rows, source
    if uses_white_box_teacher(config):
        opened = open_imported if context.pair.teacher.is_imported else open_served
        return decided.rows, opened(context, decided.rows)
    if config.box_type == "white":
        console.info("alpha is 0: the teacher is not needed, this is plain fine-tuning")
        return decided.rows, None
    if not needs_teacher(config):
        console.info("alpha is 0: the teacher does not write anything, this is plain fine-tuning")
        return decided.rows, None
    return decided.rows + generated_rows(context, load_examples(context.run.data / "train")), None


def teaching_loader(context: TrainingContext, decided: Decided) -> TeacherLoader:
    """The loader of the white-box teacher that teaches, tuned where that is asked for.

    Raises:
        ValueError: the teacher's distributions have no part.
    """
    if decided.loader is None or decided.teacher is None:
        raise ValueError("there is no teacher to load")
    return tuned_loader(context, decided.loader, decided.tuning, decided.teacher.streaming)


def tuned_loader(
    context: TrainingContext, loader: TeacherLoader, tuning: TeacherTuning | None, streaming: StreamingChoice
) -> TeacherLoader:
    """The loader of the teacher that teaches; it is tuned first where that is asked for.

    Raises:
        Interrupted: a signal arrived.
    """
    if tuning is not None:
        loader.forget()
        tuned = tuning.run()
        loader = TeacherLoader(context, loader.rows, tuned.fingerprint, tuned.located)
    loader.streaming = streaming
    return loader


def _check_disk(context: TrainingContext, decision: TeacherDecision | None) -> None:
    """Refuse to begin what cannot be finished."""
    run, settled = context.run, settled_control(context.config)
    control = settled is not None and settled.on
    free = free_disk_bytes(run.path) + replaced_bytes(run.path, decision.tunes if decision is not None else 0)
    free += bytes_below(run.control) if control else 0
    decide_disk(context.config, run.path, free, student_size(context.pair), decision, control=control)
