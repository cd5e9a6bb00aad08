"""What a run decides before it computes anything; the plan of `--dry-run` asks the same functions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distillkit.run.context import needs_teacher
from distillkit.settings.parameters import Parameters
from distillkit.teachers.choices import (
    CacheChoice,
    StreamingChoice,
    TeacherFacts,
    cache_bytes,
    choose_cache,
    choose_streaming,
)
from distillkit.training.disk import check_disk, finished_disk_bytes, student_disk_bytes


@dataclass(frozen=True)
class TeacherDecision:
    """How a white-box run has its teacher.

    Attributes:
        cache: which cache, and why.
        streaming: whether it runs block by block, and why.
        cache_bytes: what is still to be written of the cache.
    """

    cache: CacheChoice
    streaming: StreamingChoice
    cache_bytes: int


def decide_teacher(config: Parameters, facts: TeacherFacts, remembered: CacheChoice | None = None) -> TeacherDecision:
    """How the teacher is had.

    Args:
        remembered: what `auto` came to when this run began.

    Raises:
        DistillkitError: what was asked for does not fit on the disk.
        PreconditionError, UsageError: it is not possible with this teacher.
    """
    streaming = choose_streaming(config, facts.memory)
    cache = choose_cache(config, facts, streaming, remembered)
    return TeacherDecision(cache, streaming, cache_bytes(cache, facts, streaming))


def uses_white_box_teacher(config: Parameters) -> bool:
    """Whether the student learns from the teacher's distributions."""
    return config.box_type == "white" and needs_teacher(config)


def decide_disk(
    config: Parameters, place: Path, free: int, parameters: int, teacher: TeacherDecision | None, *, control: bool
) -> int:
    """The bytes that the training needs on the disk, with those of its control.

    Args:
        place: the run directory.
        free: bytes that can be had there, old checkpoints counted.
        parameters: of the student.
        control: whether a control follows in any case.

    Raises:
        DistillkitError: they do not fit.
    """
    student, cache = student_disk_bytes(config, parameters), teacher.cache_bytes if teacher is not None else 0
    if control:
        student += finished_disk_bytes(config, parameters)
    check_disk(place, free, student, cache)
    return student + cache
