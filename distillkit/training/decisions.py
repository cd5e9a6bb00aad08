"""What a run decides before it computes anything; the plan of `--dry-run` asks the same functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distillkit.console import format_bytes
from distillkit.data.step_shares import share_of_step
from distillkit.errors import PreconditionError, UsageError
from distillkit.models.located import LocatedModel
from distillkit.models.model_files import quantised_how
from distillkit.run.context import needs_teacher
from distillkit.run.student_size import StudentSize
from distillkit.settings.conditions import is_on_policy
from distillkit.settings.parameters import Parameters
from distillkit.teachers.choices import (
    CacheChoice,
    StreamingChoice,
    TeacherFacts,
    TeacherMemory,
    cache_bytes,
    choose_cache,
    choose_streaming,
)
from distillkit.training.disk import (
    check_disk,
    finished_disk_bytes,
    student_disk_bytes,
    tuned_teacher_bytes,
    tuning_disk_bytes,
)

# Of a parameter that is trained: the weight, its gradient and two moments, in fp32.
TRAINING_BYTES = 16


@dataclass(frozen=True)
class TuningFacts:
    """A teacher that is still to be tuned.

    Attributes:
        parameters: of it.
        quantised: how its weights are quantised, in a few words; None: they are plain numbers.
    """

    parameters: int
    quantised: str | None


@dataclass(frozen=True)
class TeacherDecision:
    """How a white-box run has its teacher.

    Attributes:
        cache: which cache, and why.
        streaming: whether it runs block by block, and why.
        cache_bytes: what is still to be written of the cache.
        tunes: parameters of a teacher that is still to be tuned; 0: none is.
    """

    cache: CacheChoice
    streaming: StreamingChoice
    cache_bytes: int
    tunes: int = 0


@dataclass(frozen=True)
class TeacherChoice:
    """What the other processes of a training have to know of a white-box teacher whose cache, if it has one, is complete.

    Attributes:
        cache, why: of `CacheChoice`.
        fingerprint: of the teacher as it came, which takes reading it all.
        others: the same of further teachers, by name of the attribute.
    """

    cache: str
    why: str
    fingerprint: str
    others: Sequence[Mapping[str, str]] = ()


def decide_teacher(
    config: Parameters,
    facts: TeacherFacts,
    remembered: CacheChoice | None = None,
    tuning: TuningFacts | None = None,
) -> TeacherDecision:
    """How the teacher is had.

    Args:
        remembered: what `auto` came to when this run began.
        tuning: of a teacher that is still to be tuned.

    Raises:
        DistillkitError: what was asked for does not fit on the disk.
        PreconditionError, UsageError: it is not possible with this teacher.
    """
    streaming = choose_streaming(config, facts.memory)
    if is_on_policy(vars(config)):
        _check_whole(facts.memory, streaming)
    if tuning is not None:
        _check_tuning(tuning, facts.memory, streaming)
    cache = choose_cache(config, facts, streaming, remembered)
    return TeacherDecision(cache, streaming, cache_bytes(cache, facts, streaming), tuning.parameters if tuning else 0)


def decide_teachers(
    config: Parameters,
    facts: Sequence[TeacherFacts],
    remembered: Sequence[CacheChoice | None],
    tuning: TuningFacts | None = None,
) -> list[TeacherDecision]:
    """How each of one or several teachers is had; what one writes the next no longer has.

    Args:
        facts: of each, the first one first.
        remembered: of each, what `auto` came to when this run began.
        tuning: of the first, if it is still to be tuned.

    Raises:
        DistillkitError, PreconditionError, UsageError: as `decide_teacher`.
    """
    weights, spent = sum(fact.memory.weight_bytes for fact in facts), 0
    decisions: list[TeacherDecision] = []
    for number, (fact, before) in enumerate(zip(facts, remembered, strict=True)):
        beside = weights - fact.memory.weight_bytes
        own = replace(fact, beside_bytes=beside, free_disk=max(0, fact.free_disk - spent))
        decisions.append(decide_teacher(config, own, before, tuning if number == 0 else None))
        spent += decisions[-1].cache_bytes
    return decisions


def together(decisions: Sequence[TeacherDecision]) -> TeacherDecision:
    """The first of several teachers with the bytes of the caches of all."""
    return replace(decisions[0], cache_bytes=sum(decision.cache_bytes for decision in decisions))


def _check_tuning(tuning: TuningFacts, memory: TeacherMemory, streaming: StreamingChoice) -> None:
    """Refuse to tune what cannot be trained here.

    Raises:
        PreconditionError: its weights are quantised, or it does not fit into memory.
    """
    if tuning.quantised is not None:
        raise PreconditionError(
            f"the teacher {memory.name} is quantised ({tuning.quantised}): such weights cannot be tuned",
            hint="name the unquantised original that it was made from, or leave --tune-teacher out",
        )
    needed = TRAINING_BYTES * tuning.parameters
    if streaming.on or needed > memory.free_bytes:
        raise PreconditionError(
            f"the teacher {memory.name} does not fit into memory to be tuned: {format_bytes(needed)} are needed for its "
            f"weights, gradients and moments alone, {format_bytes(memory.free_bytes)} are free",
            hint="leave --tune-teacher out, or name a smaller teacher",
        )


def check_processes(config: Parameters, processes: int) -> None:
    """Refuse what several processes cannot train, as far as the configuration alone tells it.

    Raises:
        UsageError: there are on-policy steps, or a step cannot be divided.
    """
    if processes > 1 and is_on_policy(vars(config)):
        raise UsageError(
            f"--on-policy-fraction and {processes} processes exclude each other: the student writes in one process alone",
            hint="start one process, or leave --on-policy-fraction out",
        )
    share_of_step(config.batch_size, config.gradient_accumulation, processes)


def is_divided(config: Parameters, processes: int) -> bool:
    """Whether the student is divided over the processes; alone with it, one has it all."""
    return config.parallel == "fsdp" and processes > 1


def check_division(config: Parameters, student: LocatedModel, processes: int) -> None:
    """Refuse to divide a student that cannot be divided.

    Raises:
        PreconditionError: its weights are quantised.
    """
    how = quantised_how(student.folder)
    if is_divided(config, processes) and how is not None:
        raise PreconditionError(
            f"--parallel fsdp: {student.reference.text} is quantised ({how}): such weights cannot be divided by rows",
            hint="use --parallel ddp",
        )


def _check_whole(memory: TeacherMemory, streaming: StreamingChoice) -> None:
    """Refuse on-policy steps whose teacher cannot be in memory as a whole.

    Raises:
        PreconditionError: it does not fit.
    """
    if streaming.on:
        raise PreconditionError(
            f"the teacher {memory.name} does not fit into memory as a whole, as on-policy steps need it: {streaming.why}",
            hint="leave --on-policy-fraction out, or name a smaller teacher",
        )


def uses_white_box_teacher(config: Parameters) -> bool:
    """Whether the student learns from the teacher's distributions."""
    return config.box_type == "white" and needs_teacher(config)


def tunes_teacher(config: Parameters) -> bool:
    """Whether the teacher is tuned before it teaches."""
    return uses_white_box_teacher(config) and config.tune_teacher > 0


def disk_bytes(config: Parameters, size: StudentSize, teacher: TeacherDecision | None, *, control: bool = False) -> int:
    """The bytes that the training needs on the disk at most at one time.

    Args:
        size: of the student.
        control: whether its control is made too.
    """
    student, cache = _students_bytes(config, size, control), teacher.cache_bytes if teacher is not None else 0
    tunes = teacher.tunes if teacher is not None else 0
    # The checkpoints of the tuning are gone before the rest is written.
    return max(tuning_disk_bytes(tunes), tuned_teacher_bytes(tunes) + student + cache)


def _students_bytes(config: Parameters, size: StudentSize, control: bool) -> int:
    return student_disk_bytes(config, size) + (finished_disk_bytes(config, size) if control else 0)


def decide_disk(
    config: Parameters, place: Path, free: int, size: StudentSize, teacher: TeacherDecision | None, *, control: bool
) -> int:
    """The bytes that the training needs on the disk, with those of its control.

    Args:
        place: the run directory.
        free: bytes that can be had there, old checkpoints counted.
        size: of the student.
        control: whether a control follows in any case.

    Raises:
        DistillkitError: they do not fit.
    """
    student, cache = _students_bytes(config, size, control), teacher.cache_bytes if teacher is not None else 0
    tunes = teacher.tunes if teacher is not None else 0
    check_disk(place, free, student, cache, tunes)
    return disk_bytes(config, size, teacher, control=control)
