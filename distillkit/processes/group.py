"""What the processes of a shared training tell one another; a training in one process has the group `ALONE`.

Everything here goes over gloo, between processors: numbers of a step, a few kilobytes of random states. Gradients are the
business of torch's DistributedDataParallel.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class LeaderFailedError(Exception):
    """Process 0 has failed at what the others waited for; it tells the user."""


@dataclass(frozen=True)
class Group:
    """The processes that work together; one of them calls the methods when all do, in the same order.

    Attributes:
        rank, size: as of `Place`.
    """

    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def by_leader(self, work: Callable[[], T]) -> T:
        """What `work` gives in process 0, for all; the others wait for it.

        Raises:
            LeaderFailedError: `work` raised an error in process 0, where that error itself is raised.
        """
        if self.alone:
            return work()
        if not self.leads:
            failed, result = self._broadcast(None)
            if failed:
                raise LeaderFailedError
            return result
        try:
            result = work()
        except BaseException:
            self._broadcast((True, None))
            raise
        self._broadcast((False, result))
        return result

    def exchange(self, numbers: Sequence[float]) -> list[list[float]]:
        """The numbers of every process, by rank. As many from each, in float64."""
        if self.alone:
            return [list(numbers)]
        import torch
        from torch import distributed

        own = torch.tensor(list(numbers), dtype=torch.float64)
        gathered = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(gathered, own)
        return [values.tolist() for values in gathered]

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """The sums of the numbers over all processes, added in the order of ranks, so that all get the same."""
        return [sum(column) for column in zip(*self.exchange(numbers), strict=True)]

    def part(self, items: Sequence[T]) -> list[T]:
        """The items that this process works at: every size-th, so that all get like ones."""
        return list(items[self.rank :: self.size])

    def meet(self) -> None:
        """Wait until all have come here."""
        self.exchange([0.0])

    def gather(self, value: bytes) -> list[bytes]:
        """The values of all processes by rank, in process 0; [] in the others."""
        if self.alone:
            return [value]
        from torch import distributed

        gathered: list[Any] | None = [None] * self.size if self.leads else None
        distributed.gather_object(value, gathered)
        return gathered or []

    def _broadcast(self, value: Any) -> Any:
        """Process 0's value, in all. Pickles go between the processes of one command only, which trust one another."""
        import torch
        from torch import distributed

        data = pickle.dumps(value) if self.leads else b""
        size = torch.tensor([len(data)])
        distributed.broadcast(size, 0)
        own = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else None
        buffer = torch.empty(int(size), dtype=torch.uint8) if own is None else own
        distributed.broadcast(buffer, 0)
        return pickle.loads(buffer.numpy().tobytes())


ALONE = Group()
