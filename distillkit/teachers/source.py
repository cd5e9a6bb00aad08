"""Where a white-box run takes its teacher from: the cache, or the model itself beside the student."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.console import Console, format_bytes
from distillkit.errors import DistillkitError, PreconditionError
from distillkit.models.pair import ModelPair
from distillkit.parameters import Parameters
from distillkit.teachers.cache import CacheKey, TeacherCache, free_space
from distillkit.teachers.cache_entries import FOLDER
from distillkit.teachers.states import TeacherStates
from distillkit.teachers.teacher_pass import CachedTeacher, fill_cache
from distillkit.teachers.white_box import WhiteBoxTeacher
from distillkit.training.precision import Compute

# What else the run writes besides the cache, at least.
_RESERVE_BYTES = 1 << 30


@dataclass
class TeacherSource:
    """The teacher of a run.

    Attributes:
        states: what the losses ask.
        live: the model, where it runs beside the student; it counts its own tokens.
        figures: tokens, seconds and cache bytes of the teacher pass, where there was one.
    """

    states: TeacherStates
    live: WhiteBoxTeacher | None
    figures: dict[str, Any]


def open_teacher(
    config: Parameters,
    output_dir: Path,
    pair: ModelPair,
    compute: Compute,
    token_ids: Sequence[Sequence[int]],
    console: Console,
) -> TeacherSource:
    """The teacher for these texts, from the cache if `config.teacher_cache` and the circumstances say so.

    Args:
        output_dir: caches lie below it.
        token_ids: what the teacher reads, text by text.

    Raises:
        DistillkitError: the cache was asked for and does not fit on the disk.
        PreconditionError: it was asked for and the teacher's head is not a plain linear layer.
        Interrupted: a signal arrived during the teacher pass.
    """
    key = CacheKey.of(pair.teacher.reference.text, pair.teacher.fingerprint(), compute.teacher, token_ids)
    root = output_dir / FOLDER
    loaded: list[WhiteBoxTeacher] = []

    def load() -> WhiteBoxTeacher:
        if not loaded:
            loaded.append(WhiteBoxTeacher(pair.load_teacher(compute.teacher, console), compute))
        return loaded[0]

    width = _known_width(root / key.name)
    if config.teacher_cache == "off" or (config.teacher_cache == "auto" and width is None and config.epochs == 1):
        teacher = load()
        return TeacherSource(teacher, teacher, {})
    if width is None:
        layer = load().head_layer
        if layer is None:
            words = "its head is more than a linear layer on its last hidden states"
            if config.teacher_cache == "exact":
                raise PreconditionError(f"the teacher cannot be cached: {words}", hint="use --teacher-cache off")
            console.info(f"the teacher is not cached: {words}")
            return TeacherSource(load(), load(), {})
        width = layer.in_features
    cache = TeacherCache(root, key, width)
    if not _fits(cache, root, config, console):
        return TeacherSource(load(), load(), {})
    return _cached(cache, token_ids, load, loaded, compute, console)


def _cached(
    cache: TeacherCache,
    token_ids: Sequence[Sequence[int]],
    load: Callable[[], WhiteBoxTeacher],
    loaded: list[WhiteBoxTeacher],
    compute: Compute,
    console: Console,
) -> TeacherSource:
    figures = fill_cache(cache, token_ids, load, console)
    loaded.clear()  # Teacher and student are never in memory together.
    if figures.cached_tokens == figures.tokens:
        console.info(f"the teacher has read these texts before: {format_bytes(cache.bytes)} from its cache")
    speed = figures.tokens / max(figures.seconds, 1e-9)
    words = {
        "tokens": figures.tokens,
        "seconds": round(figures.seconds, 3),
        "tokens_per_second": round(speed, 2),
        "cached_tokens": figures.cached_tokens,
        "cache_bytes": figures.cache_bytes,
    }
    return TeacherSource(CachedTeacher(cache, compute.device), None, words)


def _known_width(folder: Path) -> int | None:
    """The width that a cache begun earlier has; None where there is none."""
    try:
        return int(json.loads((folder / "meta.json").read_text(encoding="utf-8"))["width"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fits(cache: TeacherCache, root: Path, config: Parameters, console: Console) -> bool:
    missing = sum(shard.tokens for shard in cache.missing()) * cache.width * cache.key.dtype.itemsize
    free = free_space(root)
    if missing == 0 or missing + _RESERVE_BYTES <= free:
        return True
    words = f"its cache takes {format_bytes(missing)}, {format_bytes(free)} are free in {root.parent}"
    if config.teacher_cache == "exact":
        raise DistillkitError(
            f"the teacher cannot be cached: {words}", hint="free some space, or use --teacher-cache off"
        )
    console.info(f"the teacher is not cached: {words}")
    return False
