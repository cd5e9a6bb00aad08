"""Where a white-box training takes its teacher from: the model itself beside the student, or its exact cache.

`open_source` decides and opens; the kinds are registered in `registry.TEACHER_SOURCES`, sparse targets among them
(`teachers.open_sparse`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from distillkit import registry
from distillkit.console import Console, format_bytes
from distillkit.data.training_rows import Row
from distillkit.errors import PreconditionError
from distillkit.run.context import TrainingContext
from distillkit.storage import make_folder, read_json, with_checksum, without_checksum, write_json
from distillkit.teachers.choices import CacheChoice
from distillkit.teachers.live import LiveTeacher
from distillkit.teachers.loader import TeacherLoader
from distillkit.teachers.precompute import CachedTeacher, PassFigures, as_metrics
from distillkit.teachers.protocol import TeacherSource
from distillkit.teachers.targets import teacher_signal


def open_source(context: TrainingContext, loader: TeacherLoader, choice: CacheChoice) -> TeacherSource:
    """The teacher as `choice` has it; a cache is completed first.

    Raises:
        Interrupted: a signal arrived during the teacher pass.
        DistillkitError: the disk is full, or the teacher gives no numbers.
    """
    opened = registry.resolve(registry.TEACHER_SOURCES, choice.mode)
    return opened(context, loader, loader.rows)


class LiveSource:
    """The model itself, which runs on every batch of the training."""

    pairs_rows = True

    def __init__(self, teacher: LiveTeacher) -> None:
        self.teacher = teacher

    def signal(self, context: TrainingContext) -> Any:
        return teacher_signal(context.config, context.encoders, self.teacher, paired=context.pairs_rows)

    def totals(self) -> tuple[int, float]:
        return self.teacher.tokens, self.teacher.seconds

    def restore_totals(self, tokens: int, seconds: float) -> None:
        self.teacher.tokens, self.teacher.seconds = tokens, seconds

    def gives_numbers(self, batch: Mapping[str, Any]) -> bool:
        return bool(torch.isfinite(self.teacher.hidden(batch)).all())

    def figures(self) -> dict[str, Any]:
        tokens, seconds = self.totals()
        return as_metrics(PassFigures(tokens, seconds, cached_tokens=0, cache_bytes=0))


class CachedSource:
    """What has been computed before the training: there are no forward passes, and only numbers have been kept."""

    def __init__(self, passed: PassFigures) -> None:
        self._passed = passed

    def totals(self) -> tuple[int, float]:
        return 0, 0.0

    def restore_totals(self, tokens: int, seconds: float) -> None:
        """Nothing is counted."""

    def gives_numbers(self, batch: Mapping[str, Any]) -> bool:
        return True

    def figures(self) -> dict[str, Any]:
        return as_metrics(self._passed)


class ExactSource(CachedSource):
    """The exact cache: hidden states from the disk, and the head."""

    pairs_rows = True

    def __init__(self, teacher: CachedTeacher, passed: PassFigures) -> None:
        super().__init__(passed)
        self.teacher = teacher

    def signal(self, context: TrainingContext) -> Any:
        return teacher_signal(context.config, context.encoders, self.teacher, paired=context.pairs_rows)


def open_live(context: TrainingContext, loader: TeacherLoader, rows: Sequence[Row]) -> LiveSource:
    """`--teacher-cache off`."""
    return LiveSource(loader.load())


def open_exact(context: TrainingContext, loader: TeacherLoader, rows: Sequence[Row]) -> ExactSource:
    """`--teacher-cache exact`: the cache is completed first.

    Raises:
        Interrupted: a signal arrived during the teacher pass.
        PreconditionError: the teacher's head is more than a linear layer.
    """
    cache = loader.exact_cache()
    if cache is None:
        raise PreconditionError("the teacher has no plain head to cache", hint="use --teacher-cache off")
    passed = loader.fill(cache)
    loader.forget()
    if 0 < passed.cached_tokens < passed.tokens:
        context.console.info(f"the teacher had read {passed.cached_tokens:,} of {passed.tokens:,} tokens before")
    if passed.cached_tokens == passed.tokens:
        context.console.info(f"the teacher has read these texts before: {format_bytes(cache.bytes)} from its cache")
    return ExactSource(CachedTeacher(cache, context.compute.device), passed)


# --- what `auto` chose stays chosen ----------------------------------------------------------------------------------


def remembered_choice(note: Path) -> CacheChoice | None:
    """What `auto` chose when the run began; None if it begins now.

    Raises:
        PreconditionError: the note is damaged. Another choice would make another student.
    """
    if not note.exists():
        return None
    try:
        noted = without_checksum(read_json(note))
        return CacheChoice(str(noted["mode"]), str(noted["why"]))
    except (OSError, ValueError, KeyError) as error:
        raise PreconditionError(f"{note} is damaged: {error}", hint="start anew with --force") from error


def remember_choice(note: Path, choice: CacheChoice, console: Console, what: str = "teacher cache") -> None:
    """Note what `auto` chose, so that a run that resumes does not choose otherwise.

    Args:
        what: of which teacher it is, for people.
    """
    if note.exists():
        return
    make_folder(note.parent)
    write_json(note, with_checksum({"mode": choice.mode, "why": choice.why}))
    console.info(f"{what}: {choice.mode}: {choice.why}")
