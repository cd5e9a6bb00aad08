"""How many processors this process may use, and how many threads torch gets.

More threads than there is processor time for wait for one another at the end of every product: measured on two processors
that others kept busy, two threads trained at a seventh of the speed of one (24 against 165 tokens/s). So threads follow the
quota of a container, and where other processes are at work, what a few products take with more threads and with fewer.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from distillkit.device.control_groups import group_limits
from distillkit.process_state import threads_are_lost

# Whoever sets one of these has decided.
_DECIDED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")
_LOOK_SECONDS = 0.2
# Processors' worth of work of others, from which products are timed.
_BUSY = 0.25
_ROUNDS, _SECONDS_EACH = 2, 0.12
# A product small enough that waiting for one another shows, and large enough that torch splits it.
_SIDE = 192


@dataclass(frozen=True)
class ThreadChoice:
    """How many threads torch gets.

    Attributes:
        why: to follow "threads: 2, "; "" where there is nothing to say.
    """

    count: int
    why: str = ""

    def line(self) -> str:
        """`threads: 1, for the container has the time of so many processors`, or ""."""
        return f"threads: {self.count}, {self.why}" if self.why else ""


def usable_processors(root: Path = Path("/")) -> int:
    """Processors of the affinity mask (`taskset`, cpusets), or fewer where a quota gives less time than these have."""
    running, quota = len(_affinity()), group_limits(root).processors
    return max(1, running if quota is None else min(running, math.ceil(quota)))


def choose_threads(
    wanted: int | None = None, began_with: int | None = None, *, computes_here: bool = True, root: Path = Path("/")
) -> ThreadChoice:
    """How many threads torch is to have.

    A number that somebody has given stays; a run keeps to the one that it began with, for its last digits depend on it;
    else no more than the quota has time for, and where others are at work, as many as are fastest now.

    Args:
        wanted: `--threads`.
        began_with: of the training that is continued.
        computes_here: whether the processor does the work, and not a GPU: else nobody looks who is busy.
    """
    usual, usable = torch.get_num_threads(), usable_processors(root)
    if threads_are_lost():
        return ThreadChoice(usual)  # `left_as_found` has said why.
    if wanted is not None:
        return ThreadChoice(wanted, f"as --threads says{_other_than(began_with, wanted)}")
    if any(name in os.environ for name in _DECIDED):
        changed = _other_than(began_with, usual)
        return ThreadChoice(usual, f"as the environment says{changed}" if changed else "")
    if began_with is not None and began_with <= usable:
        return ThreadChoice(began_with, _kept(began_with, usual, computes_here))
    within = min(usual, usable)
    others = _others_work() if computes_here and within > 1 else 0.0
    if others >= _BUSY:
        count = _fastest(within, others)
        if count < within:
            why = f"not {within}: other processes use {others:.1f} of {usable} processors, and fewer threads are faster now"
            return ThreadChoice(count, f"{why}{_other_than(began_with, count)}")
    why = "for the container has the time of so many processors" if within < usual else ""
    changed = _other_than(began_with, within)
    return ThreadChoice(within, f"{why or 'there are no more processors'}{changed}" if why or changed else "")


@contextlib.contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Inside, torch has so many threads."""
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- what is said ----------------------------------------------------------------------------------------------------


def _other_than(began_with: int | None, count: int) -> str:
    if began_with is None or began_with == count:
        return ""
    return f"; this run began with {began_with}, so that its last digits may now come out otherwise"


def _kept(began_with: int, usual: int, computes_here: bool) -> str:
    others = _others_work() if computes_here and began_with > 1 else 0.0
    if others >= _BUSY:
        return f"with which this run began; other processes use {others:.1f} processors, so --threads 1 may be faster"
    return "with which this run began" if began_with != usual else ""


# --- who is at work --------------------------------------------------------------------------------------------------


def _affinity() -> list[int]:
    try:
        return sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # Linux has it
        return list(range(os.cpu_count() or 1))


def _others_work() -> float:
    """Processors' worth of work on those of this process, while it waits; 0 where the system does not say."""
    try:
        busy = psutil.cpu_percent(interval=_LOOK_SECONDS, percpu=True)
    except (OSError, RuntimeError, NotImplementedError):  # some sandboxes
        return 0.0
    mine = [busy[number] for number in _affinity() if number < len(busy)]
    return sum(mine) / 100


def _fastest(most: int, others: float, measure: Callable[[int], float] | None = None) -> int:
    """Of `most` threads, as many as the others leave, and one, those with which products go fastest.

    Args:
        measure: products in a second with so many threads.
    """
    measure = measure or _pace
    candidates = sorted({1, max(1, min(most, round(most - others))), most})
    paces = dict.fromkeys(candidates, 0.0)
    for _ in range(_ROUNDS):  # In turns, so that a moment of quiet is nobody's advantage.
        for count in candidates:
            paces[count] += measure(count)
    return max(candidates, key=lambda count: paces[count])


def _pace(count: int) -> float:
    """Products in a second with so many threads."""
    factor = torch.full((_SIDE, _SIDE), 0.01)
    with with_threads(count), torch.inference_mode():
        torch.mm(factor, factor)  # The threads begin.
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < _SECONDS_EACH:
            torch.mm(factor, factor)
            done += 1
        return done / (time.perf_counter() - began)
