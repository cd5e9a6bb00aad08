"""Where a white-box run takes its teacher from: a cache, or the model itself beside the student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.console import Console, format_bytes
from distillkit.errors import DistillkitError, PreconditionError
from distillkit.settings.conditions import sparse_problem
from distillkit.settings.parameters import Parameters
from distillkit.storage import make_folder, read_json, with_checksum, without_checksum, write_json
from distillkit.teachers.exact_cache import free_space
from distillkit.teachers.live import LiveTeacher
from distillkit.teachers.loader import RESERVE_BYTES, TeacherLoader
from distillkit.teachers.precompute import CachedTeacher, PassFigures
from distillkit.teachers.protocol import Teacher
from distillkit.teachers.sparse_cache import BYTES_PER_TOKEN, SparseCache


@dataclass
class TeacherSource:
    """The teacher of a run.

    Attributes:
        states: what the losses ask; None where they read sparse targets instead.
        live: the model, where it runs beside the student; it counts its own tokens.
        figures: tokens, seconds and cache bytes of the teacher pass, where there was one.
        sparse: the sparse targets, where the run reads these.
    """

    states: Teacher | None
    live: LiveTeacher | None
    figures: dict[str, Any]
    sparse: SparseCache | None = None


@dataclass(frozen=True)
class CacheChoice:
    """`exact`, `sparse` or `off`, and why."""

    mode: str
    why: str


def choose_cache(config: Parameters, loader: TeacherLoader, memory: Path, console: Console) -> CacheChoice:
    """What `config.teacher_cache` comes to here.

    Args:
        memory: where `auto` notes what it chose, so that a run that goes on does not choose otherwise: the student
            would not be the same.

    Raises:
        DistillkitError: a cache was asked for and does not fit on the disk.
        PreconditionError: the exact one was asked for and the teacher's head is not a plain linear layer.
    """
    if config.teacher_cache != "auto":
        choice = CacheChoice(config.teacher_cache, "as --teacher-cache says")
    else:
        choice = _remembered(memory) or _automatic(config, loader)
        if not memory.exists():
            make_folder(memory.parent)
            write_json(memory, with_checksum({"mode": choice.mode, "why": choice.why}))
            console.info(f"teacher cache: {choice.mode}: {choice.why}")
    if choice.mode == "exact":
        cache = loader.exact_cache()
        if cache is None:
            raise PreconditionError(f"the teacher cannot be cached: {_WHOLE}", hint="use --teacher-cache off")
        problem = loader.disk_problem(cache)
        if problem is not None:
            raise DistillkitError(
                f"the teacher cannot be cached: {problem}", hint="free some space, or use --teacher-cache sparse or off"
            )
    return choice


_WHOLE = "its head is more than a linear layer on its last hidden states"


def _remembered(memory: Path) -> CacheChoice | None:
    """What `auto` chose when the run began; None if it begins now.

    Raises:
        PreconditionError: the note is damaged. Another choice would make another student.
    """
    if not memory.exists():
        return None
    try:
        noted = without_checksum(read_json(memory))
        return CacheChoice(str(noted["mode"]), str(noted["why"]))
    except (OSError, ValueError, KeyError) as error:
        raise PreconditionError(f"{memory} is damaged: {error}", hint="start anew with --force") from error


def _automatic(config: Parameters, loader: TeacherLoader) -> CacheChoice:
    if loader.width is None and config.epochs == 1 and not loader.streaming.on:
        return CacheChoice("off", "with one epoch every text is read once")
    begun = loader.width is not None
    cache = loader.exact_cache()
    if cache is None:
        return CacheChoice("off", _WHOLE)
    problem = loader.disk_problem(cache)
    if problem is None:
        size = f"{format_bytes(cache.bytes)} for {cache.key.tokens:,} tokens"
        return CacheChoice("exact", f"{size}, {'begun by an earlier run' if begun else 'read in every epoch'}")
    if loader.streaming.on:
        raise DistillkitError(
            f"the teacher cannot run block by block: {problem}", hint="free some space, or choose another --output-dir"
        )
    needed = cache.key.tokens * BYTES_PER_TOKEN
    if sparse_problem(vars(config)) is None and needed + RESERVE_BYTES <= free_space(loader.root):
        return CacheChoice("sparse", f"about {format_bytes(needed)}; of an exact one, {problem}")
    return CacheChoice("off", problem)


def open_exact(loader: TeacherLoader) -> TeacherSource:
    """The teacher from its exact cache, which is completed first.

    Raises:
        Interrupted: a signal arrived during the teacher pass.
    """
    cache = loader.exact_cache()
    if cache is None:
        raise PreconditionError(f"the teacher cannot be cached: {_WHOLE}", hint="use --teacher-cache off")
    figures = loader.fill(cache)
    loader.forget()  # Teacher and student are never in memory together.
    if 0 < figures.cached_tokens < figures.tokens:
        loader.console.info(f"the teacher had read {figures.cached_tokens:,} of {figures.tokens:,} tokens before")
    if figures.cached_tokens == figures.tokens:
        loader.console.info(f"the teacher has read these texts before: {format_bytes(cache.bytes)} from its cache")
    return TeacherSource(CachedTeacher(cache, loader.compute.device), None, as_metrics(figures))


def open_live(loader: TeacherLoader) -> TeacherSource:
    """The model itself, beside the student."""
    teacher = loader.load()
    return TeacherSource(teacher, teacher, {})


def as_metrics(figures: PassFigures) -> dict[str, Any]:
    """For metrics.json."""
    return {
        "tokens": figures.tokens,
        "seconds": round(figures.seconds, 3),
        "tokens_per_second": round(figures.tokens / max(figures.seconds, 1e-9), 2),
        "cached_tokens": figures.cached_tokens,
        "cache_bytes": figures.cache_bytes,
    }
