"""The share of each process in an optimizer step: the examples of a step are the same however many processes compute it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from distillkit.data.batching import DistillationCollator, LengthGroupedSampler
from distillkit.errors import UsageError
from distillkit.processes.group import Group

_SPARE = "spare"


@dataclass(frozen=True)
class StepShare:
    """How one process computes its part of every step.

    Attributes:
        batch_size: examples of a micro-batch, at most.
        accumulation: micro-batches of a step, at most.
    """

    batch_size: int
    accumulation: int


def share_of_step(batch_size: int, accumulation: int, processes: int) -> StepShare:
    """Divide a step of `batch_size` · `accumulation` examples: equal parts, in micro-batches as large as they may be.

    Raises:
        UsageError: it cannot be divided.
    """
    if processes == 1:
        return StepShare(batch_size, accumulation)
    step = batch_size * accumulation
    if step % processes:
        raise UsageError(
            f"{processes} processes cannot divide a step of {step} examples (batch_size {batch_size}, gradient_accumulation "
            f"{accumulation}) into equal parts",
            hint=f"start as many processes as divide {step}, or choose a --batch-size that {processes} divides",
        )
    own = step // processes
    micro = next(size for size in range(min(batch_size, own), 0, -1) if own % size == 0)
    return StepShare(micro, own // micro)


class SharedBatches(Sampler[list[int]]):
    """The micro-batches of one process, in an order that depends on the seed and the epoch alone.

    Every process gets as many in each step; micro-batches that are computed at the same time have similar lengths. A last step
    of few examples may leave a process none: then it gets a spare, an example ~index that others have and that does not count.

    Args:
        sampler: gives the order of examples for whole steps.
        share: of this process, as of every other.
        rank, processes: which one this is, of how many.
    """

    def __init__(self, sampler: LengthGroupedSampler, share: StepShare, rank: int, processes: int) -> None:
        self.sampler = sampler
        self.share = share
        self.rank = rank
        self.processes = processes

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.sampler.step_examples)
        return whole * self.share.accumulation + math.ceil(rest / (self.share.batch_size * self.processes))

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        for begin in range(0, len(order), self.sampler.step_examples):
            yield from self._own(order[begin : begin + self.sampler.step_examples])

    def _own(self, step: Sequence[int]) -> Iterator[list[int]]:
        rounds = math.ceil(len(step) / (self.share.batch_size * self.processes))
        parts = rounds * self.processes
        for number in range(self.rank, parts, self.processes):
            part = list(step[number * len(step) // parts : (number + 1) * len(step) // parts])
            yield part or [~step[-1]]


class SparedRows(Dataset[dict[str, Any]]):
    """Rows for `SharedBatches`: also at ~index, marked as spare."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index] if index >= 0 else {**self.rows[~index], _SPARE: True}


class SparingCollator:
    """A `DistillationCollator` for `SparedRows`: a spare batch counts no targets (`HostColumns.targets` 0)."""

    def __init__(self, collator: DistillationCollator) -> None:
        self.collator = collator

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.collator(examples)
        if _SPARE in examples[0]:
            batch["host"] = replace(batch["host"], targets=0)
        return batch


def shared_loader(
    rows: Any,
    collator: DistillationCollator,
    sampler: LengthGroupedSampler,
    share: StepShare,
    group: Group,
    *,
    pin_memory: bool,
) -> DataLoader[Any]:
    """The micro-batches of this process's part of every step, see `SharedBatches`."""
    return DataLoader(
        SparedRows(rows), batch_sampler=SharedBatches(sampler, share, group.rank, group.size),
        collate_fn=SparingCollator(collator), pin_memory=pin_memory,
    )  # fmt: skip
