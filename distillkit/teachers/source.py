"""Where a white-box run takes its teacher from: a cache, or the model itself beside the student."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.config import sparse_problem
from distillkit.console import Console, format_bytes
from distillkit.errors import DistillkitError, PreconditionError
from distillkit.models.pair import ModelPair
from distillkit.parameters import Parameters
from distillkit.storage import make_folder, with_checksum, without_checksum, write_json
from distillkit.teachers.cache import CacheKey, TeacherCache, free_space, known_width
from distillkit.teachers.cache_entries import FOLDER
from distillkit.teachers.sparse_cache import BYTES_PER_TOKEN, SparseCache
from distillkit.teachers.states import TeacherStates
from distillkit.teachers.teacher_pass import CachedTeacher, PassFigures, fill_cache, head_is_whole
from distillkit.teachers.white_box import WhiteBoxTeacher
from distillkit.training.precision import Compute

# What else the run writes besides the cache, at least.
_RESERVE_BYTES = 1 << 30


@dataclass
class TeacherSource:
    """The teacher of a run.

    Attributes:
        states: what the losses ask; None where they read sparse targets instead.
        live: the model, where it runs beside the student; it counts its own tokens.
        figures: tokens, seconds and cache bytes of the teacher pass, where there was one.
        sparse: the sparse targets, where the run reads these.
    """

    states: TeacherStates | None
    live: WhiteBoxTeacher | None
    figures: dict[str, Any]
    sparse: SparseCache | None = None


class TeacherLoader:
    """Loads the teacher at most once, and knows its exact cache for these texts.

    Args:
        output_dir: caches lie below it.
        token_ids: what the teacher reads, text by text.
    """

    def __init__(
        self, output_dir: Path, pair: ModelPair, compute: Compute, token_ids: Sequence[Sequence[int]], console: Console
    ) -> None:
        self.root = output_dir / FOLDER
        self.pair, self.compute, self.token_ids, self.console = pair, compute, token_ids, console
        self.key = CacheKey.of(pair.teacher.reference.text, pair.teacher.fingerprint(), compute.teacher, token_ids)
        self.width = known_width(self.root / self.key.name)
        self._loaded: WhiteBoxTeacher | None = None

    def load(self) -> WhiteBoxTeacher:
        if self._loaded is None:
            self._loaded = WhiteBoxTeacher(self.pair.load_teacher(self.compute.teacher, self.console), self.compute)
        return self._loaded

    def forget(self) -> None:
        self._loaded = None

    def exact_cache(self) -> TeacherCache | None:
        """The cache of hidden states, begun or not; None if the teacher's head is more than a linear layer."""
        if self.width is None:
            layer = self.load().head_layer
            self.width = None if layer is None else layer.in_features
        return None if self.width is None else TeacherCache(self.root, self.key, self.width)

    def states(self) -> TeacherStates:
        """From the exact cache if that is complete, else the model."""
        if self.width is not None:
            cache = TeacherCache(self.root, self.key, self.width)
            if not cache.missing() and head_is_whole(cache):
                self.console.info("the teacher has read these texts before: its exact cache is used")
                return CachedTeacher(cache, self.compute.device)
        return self.load()


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
        problem = _exact_problem(cache, loader.root)
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
        noted = without_checksum(json.loads(memory.read_text(encoding="utf-8")))
        return CacheChoice(str(noted["mode"]), str(noted["why"]))
    except (OSError, ValueError, KeyError) as error:
        raise PreconditionError(f"{memory} is damaged: {error}", hint="start anew with --force") from error


def _automatic(config: Parameters, loader: TeacherLoader) -> CacheChoice:
    if loader.width is None and config.epochs == 1:
        return CacheChoice("off", "with one epoch every text is read once")
    begun = loader.width is not None
    cache = loader.exact_cache()
    if cache is None:
        return CacheChoice("off", _WHOLE)
    problem = _exact_problem(cache, loader.root)
    if problem is None:
        size = f"{format_bytes(cache.bytes)} for {cache.key.tokens:,} tokens"
        return CacheChoice("exact", f"{size}, {'begun by an earlier run' if begun else 'read in every epoch'}")
    needed = cache.key.tokens * BYTES_PER_TOKEN
    if sparse_problem(vars(config)) is None and needed + _RESERVE_BYTES <= free_space(loader.root):
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
    figures = fill_cache(cache, loader.token_ids, loader.load, loader.console)
    loader.forget()  # Teacher and student are never in memory together.
    if figures.cached_tokens == figures.tokens:
        loader.console.info(f"the teacher has read these texts before: {format_bytes(cache.bytes)} from its cache")
    return TeacherSource(CachedTeacher(cache, loader.compute.device), None, words_of(figures))


def open_live(loader: TeacherLoader) -> TeacherSource:
    """The model itself, beside the student."""
    teacher = loader.load()
    return TeacherSource(teacher, teacher, {})


def words_of(figures: PassFigures) -> dict[str, Any]:
    """For metrics.json."""
    return {
        "tokens": figures.tokens,
        "seconds": round(figures.seconds, 3),
        "tokens_per_second": round(figures.tokens / max(figures.seconds, 1e-9), 2),
        "cached_tokens": figures.cached_tokens,
        "cache_bytes": figures.cache_bytes,
    }


def _exact_problem(cache: TeacherCache, root: Path) -> str | None:
    missing = sum(shard.tokens for shard in cache.missing()) * cache.width * cache.key.dtype.itemsize
    free = free_space(root)
    if missing == 0 or missing + _RESERVE_BYTES <= free:
        return None
    return f"its cache takes {format_bytes(missing)}, {format_bytes(free)} are free in {root.parent}"
