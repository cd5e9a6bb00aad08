"""The sparse targets of a run: from their cache, which is completed first, by the exact cache or the model itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distillkit.console import format_bytes
from distillkit.data.text_encoder import token_tables
from distillkit.data.training_rows import Row
from distillkit.errors import UsageError
from distillkit.losses.mapped_mass import MappedMass
from distillkit.losses.sparse import SparseTargets
from distillkit.run.context import TrainingContext
from distillkit.teachers.fill_sparse import Thinning, fill_sparse_cache, fill_sparse_shards
from distillkit.teachers.loader import TeacherLoader
from distillkit.teachers.precompute import PassFigures
from distillkit.teachers.protocol import TargetMaker
from distillkit.teachers.sources import CachedSource
from distillkit.teachers.sparse_cache import SparseCache, SparseRows, sparse_key
from distillkit.teachers.targets import teacher_signal


class StoredTargets:
    """A `TargetMaker` over a complete sparse cache: a few ids and probabilities for each row.

    Attributes:
        mass: what the pass that filled the cache has seen of the teacher's probability.
    """

    def __init__(self, cache: SparseCache) -> None:
        self.cache = cache
        self.mass = MappedMass(cache.files.total("mapped"), int(cache.files.total("rows")))

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The stored targets of the batch's texts, padded."""
        width = batch["labels"].shape[1]
        texts = [self.cache.read(text) for text in batch["host"].cache_index]
        places = np.concatenate([text.rows + position * width for position, text in enumerate(texts)])
        stored = SparseRows.joined(texts)
        ids, probabilities = stored.padded()
        return {
            "rows": torch.searchsorted(batch["target_rows"], torch.from_numpy(places)),
            "ids": ids,
            "probabilities": probabilities,
            "tails": torch.from_numpy(stored.tails),
        }

    def soft_targets(self, batch: Mapping[str, Any]) -> SparseTargets:
        prepared = batch["prepared"]
        return SparseTargets(prepared["rows"], prepared["ids"], prepared["probabilities"], prepared["tails"])


class SparseSource(CachedSource):
    """Sparse targets. They know their rows themselves: a batch need not pair them."""

    pairs_rows = False

    def __init__(self, cache: SparseCache, passed: PassFigures) -> None:
        super().__init__(passed)
        self.cache = cache

    def signal(self, context: TrainingContext) -> StoredTargets:
        return StoredTargets(self.cache)


@dataclass(frozen=True)
class _Filling:
    """What the sparse targets of a run are made with."""

    cache: SparseCache
    targets: Callable[[], TargetMaker]
    thinning: Thinning

    @classmethod
    def of(cls, context: TrainingContext, loader: TeacherLoader, rows: Sequence[Row]) -> _Filling:
        config = context.config

        def targets() -> TargetMaker:
            signal = teacher_signal(config, context.encoders, loader.states(), paired=context.pairs_rows)
            if not isinstance(signal, TargetMaker):
                raise UsageError(
                    f"--teacher-cache sparse and alignment {config.alignment} exclude each other",
                    hint="use --teacher-cache exact",
                )
            return signal

        student_tokens = len(token_tables(context.encoders)[1])
        thinning = Thinning(config.sparse_method, config.sparse_size, config.temperature, student_tokens, config.seed)
        return cls(SparseCache(loader.root, sparse_key(context, loader.key, rows)), targets, thinning)


def open_sparse(context: TrainingContext, loader: TeacherLoader, rows: Sequence[Row]) -> SparseSource:
    """`--teacher-cache sparse`: the cache is completed first.

    Args:
        rows: in the order of their `cache_index`.

    Raises:
        UsageError: the alignment has a loss of its own, for which a few probabilities are not enough.
        Interrupted: a signal arrived during the teacher pass.
    """
    filling = _Filling.of(context, loader, rows)
    cache = filling.cache
    passed = fill_sparse_cache(
        cache, rows, filling.targets, filling.thinning, context.compute.device, context.console,
        aligned=context.pairs_rows, share=loader.share("sparse"),
    )  # fmt: skip
    passed.seconds += loader.streamed_seconds
    loader.drop_temporary()
    loader.forget()
    if passed.cached_tokens == passed.tokens:
        context.console.info(f"the teacher has read these texts before: {format_bytes(cache.bytes)} of sparse targets")
    cache.open()
    return SparseSource(cache, passed)


def fill_sparse_part(
    context: TrainingContext, loader: TeacherLoader, rows: Sequence[Row], shards: Sequence[int]
) -> None:
    """One process's part of the sparse targets that another has begun.

    Args:
        shards: their numbers.
    """
    filling = _Filling.of(context, loader, rows)
    cache = filling.cache
    fill_sparse_shards(
        cache, [cache.shards[number] for number in shards], rows, filling.targets(), filling.thinning,
        context.compute.device, context.console, aligned=context.pairs_rows,
    )  # fmt: skip
