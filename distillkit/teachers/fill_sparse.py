"""The sparse teacher pass: the teacher's targets for every training text, thinned out to a few ids and remembered."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor

from distillkit.console import Console
from distillkit.data.batching import DistillationCollator
from distillkit.evaluation.length_batches import batches_by_length
from distillkit.interrupts import check_interrupted
from distillkit.losses.chunked import rows_per_chunk
from distillkit.losses.sparse import SparseTargets, systematic_counts, top_k
from distillkit.losses.tempered import temper
from distillkit.processes.taking_part import Share, unshared
from distillkit.storage import make_folder
from distillkit.teachers.exact_cache import not_numbers
from distillkit.teachers.precompute import PassFigures
from distillkit.teachers.protocol import TargetMaker
from distillkit.teachers.shards import Shard, report_damage
from distillkit.teachers.sparse_cache import SparseCache, SparseRows

_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Thinning:
    """How a distribution is thinned out.

    Attributes:
        method: "sampling" or "top-k".
        size: draws for each row; ids that are kept.
        temperature: of the distribution.
        columns: student ids that the distribution is over.
        seed: of the draws, which belong to a text and its row, whatever batch they are in.
    """

    method: str
    size: int
    temperature: float
    columns: int
    seed: int


def fill_sparse_cache(
    cache: SparseCache,
    examples: Sequence[Mapping[str, Any]],
    load_targets: Callable[[], TargetMaker],
    thinning: Thinning,
    device: torch.device,
    console: Console,
    *,
    aligned: bool,
    share: Share = unshared,
) -> PassFigures:
    """Compute what the cache lacks; shards that are whole are kept, so an interrupted pass resumes where it was.

    Args:
        examples: in the order of the cache's texts.
        load_targets: only called if something is missing, forgotten on return.
        aligned: whether rows are paired.
        share: the missing shards are divided among the processes that it brings together (`fill_sparse_shards` in the others).

    Raises:
        Interrupted: a signal arrived; finished shards stay.
        DistillkitError: the disk is full.
    """
    make_folder(cache.folder.parent)
    with cache.locked():
        missing = cache.files.missing()
        tokens = sum(shard.tokens for shard in missing)
        if missing:
            report_damage(cache.files, missing, console)
            cache.begin()
            maker = load_targets()
            with share([shard.number for shard in missing]) as group:
                fill_sparse_shards(
                    cache, group.part(missing), examples, maker, thinning, device, console, aligned=aligned
                )
                group.meet()
        return PassFigures(cache.tokens, cache.files.total("seconds"), cache.tokens - tokens, cache.bytes)


def fill_sparse_shards(
    cache: SparseCache,
    shards: Sequence[Shard],
    examples: Sequence[Mapping[str, Any]],
    maker: TargetMaker,
    thinning: Thinning,
    device: torch.device,
    console: Console,
    *,
    aligned: bool,
) -> None:
    """Compute some shards of a cache that has been begun. What is in one does not depend on the others.

    Raises:
        Interrupted: a signal arrived; finished shards stay.
        DistillkitError: the disk is full.
    """
    collator = DistillationCollator(white_box=True, aligned=aligned, prepare=maker.prepare)
    with console.progress("teacher pass", total=sum(shard.tokens for shard in shards), unit="tokens") as progress:
        for shard in shards:
            began = time.monotonic()
            before = maker.mass.mapped, maker.mass.rows
            rows = _shard_rows(shard, cache, examples, collator, maker, thinning, device, progress.advance)
            facts = {"mapped": maker.mass.mapped - before[0], "rows": maker.mass.rows - before[1]}
            cache.files.write(shard, cache.pack(rows), seconds=round(time.monotonic() - began, 3), **facts)


def _shard_rows(
    shard: Shard,
    cache: SparseCache,
    examples: Sequence[Mapping[str, Any]],
    collator: DistillationCollator,
    maker: TargetMaker,
    thinning: Thinning,
    device: torch.device,
    advance: Callable[[int], None],
) -> list[SparseRows]:
    """The targets of a shard's texts in their order; batches of like lengths, always the same ones."""
    lengths = cache.key.lengths
    targets: dict[int, SparseRows] = {}
    for chosen in batches_by_length(lengths[shard.first : shard.last], _BATCH_TOKENS, first=shard.first):
        check_interrupted()
        batch = send_to_device(collator([examples[index] for index in chosen]), device)
        with torch.no_grad():
            targets |= dict(zip(chosen, _thinned(batch, chosen, maker, thinning), strict=True))
        advance(sum(lengths[index] for index in chosen))
    return [targets[index] for index in range(shard.first, shard.last)]


def _thinned(
    batch: Mapping[str, Any], texts: Sequence[int], maker: TargetMaker, thinning: Thinning
) -> list[SparseRows]:
    width = batch["labels"].shape[1]
    targets = maker.soft_targets(batch)
    if isinstance(targets, SparseTargets):
        raise TypeError("sparse targets are made from whole distributions")
    places = batch["target_rows"][targets.rows].cpu().numpy()
    uniform = torch.from_numpy(_uniform(texts, places, width, thinning.seed)).to(batch["labels"].device)
    chunks: list[SparseRows] = []
    size = rows_per_chunk(thinning.columns, batch["labels"].device)
    for begin in range(0, len(places), size):
        end = min(begin + size, len(places))
        log_target = targets.log_target(begin, end, thinning.columns)
        if not bool((log_target.amax(-1) < torch.inf).all()):  # false for NaN too
            raise not_numbers("probabilities", min(texts), max(texts) + 1)
        usable = log_target.amax(-1) != -torch.inf
        if bool(usable.any()):
            chunks.append(
                _entries(
                    temper(log_target[usable], thinning.temperature).exp(),
                    places[begin:end][usable.cpu().numpy()],
                    uniform[begin:end][usable],
                    thinning,
                )
            )
    empty = np.zeros(0)
    whole = SparseRows.joined(chunks) if chunks else SparseRows(*(empty.astype(np.int64),) * 2, *(empty,) * 3)
    ends = np.concatenate([[0], np.cumsum(whole.counts)])
    of_texts = []
    for position in range(len(texts)):
        low, high = np.searchsorted(whole.rows, [position * width, (position + 1) * width]).tolist()
        entries = slice(int(ends[low]), int(ends[high]))
        of_texts.append(
            SparseRows(
                whole.rows[low:high] - position * width, whole.counts[low:high], whole.tails[low:high],
                whole.ids[entries], whole.probabilities[entries],
            )
        )  # fmt: skip
    return of_texts


def _uniform(texts: Sequence[int], places: np.ndarray, width: int, seed: int) -> np.ndarray:
    """One number in [0, 1) for each place, by its text and its row in the text alone."""
    drawn = np.stack([np.random.default_rng([seed, text]).random(width) for text in texts])
    return drawn.reshape(-1)[places]


def _entries(probabilities: Tensor, rows: np.ndarray, uniform: Tensor, thinning: Thinning) -> SparseRows:
    if thinning.method == "top-k":
        ids, kept, tails = top_k(probabilities, thinning.size)
        counts = np.full(len(rows), ids.shape[1], dtype=np.int64)
        numbers = (tails, ids.flatten(), kept.flatten())
    else:
        drawn = systematic_counts(probabilities, thinning.size, uniform)
        where = drawn.nonzero()
        counts = torch.bincount(where[:, 0], minlength=len(rows)).cpu().numpy()
        numbers = (drawn.new_zeros(len(rows)), where[:, 1], drawn[where[:, 0], where[:, 1]] / thinning.size)
    tails, ids, kept = (value.cpu().numpy() for value in numbers)
    return SparseRows(rows, counts, tails.astype(np.float32), ids, kept.astype(np.float32))
