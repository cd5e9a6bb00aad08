"""How many processors this process may use: those it may run on, and the time that its container gives it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from distillkit.device.control_groups import group_limits

# Whoever sets one of these has decided.
_DECIDED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")


def usable_processors(root: Path = Path("/")) -> int:
    """Processors of the affinity mask (`taskset`, cpusets), or fewer where a quota gives less time than these have."""
    try:
        running = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # Linux has it
        running = os.cpu_count() or 1
    quota = group_limits(root).processors
    return max(1, running if quota is None else min(running, math.ceil(quota)))


@contextlib.contextmanager
def threads_within_quota(say: Callable[[str], None], root: Path = Path("/")) -> Iterator[None]:
    """Inside, torch has no more threads than its container has processor time for: more of them wait for one another.

    The number that somebody has set (`OMP_NUM_THREADS`) stays.
    """
    threads, usable = torch.get_num_threads(), usable_processors(root)
    if threads <= usable or group_limits(root).processors is None or any(name in os.environ for name in _DECIDED):
        yield
        return
    say(f"threads: {usable} instead of {threads}, for the container has the time of so many processors")
    torch.set_num_threads(usable)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
