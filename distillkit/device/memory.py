"""Memory: its peak, what is free, and an explanation where it does not suffice."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from distillkit.console import format_bytes
from distillkit.device.control_groups import group_limits
from distillkit.errors import DistillkitError

# Where proc and sys lie.
_ROOT = Path("/")
_HINT = (
    "lower --batch-size (and raise --gradient-accumulation to keep the result), or lower --max-length; "
    "for a teacher that does not fit: --teacher-streaming on"
)
# Messages of the CPU allocator, of the system where a file is mapped, of MPS.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "Cannot allocate memory", "MPS backend out of memory")


def peak_memory_bytes() -> int:
    """The peak of this process: of the GPU's memory where there is one, else of the machine's."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows keeps the figure in another place
        return int(getattr(psutil.Process().memory_info(), "peak_wset", psutil.Process().memory_info().rss))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory_bytes(device: torch.device) -> int:
    """Memory that is still free: on the GPU, or on the machine within the limits of this process and its container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    group = group_limits(_ROOT).memory_left
    free = [*_left_on_machine(), *_left_of_limits(), *([] if group is None else [group])]
    return max(0, min(free, default=0))


def total_memory_bytes(device: torch.device) -> int:
    """Memory that there is: the GPU's, or the machine's within the limit of the container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    group = group_limits(_ROOT).memory
    limits = [*_machine_memory(), *([] if group is None else [group])]
    return min(limits, default=0)


def _left_of_limits() -> Iterator[int]:
    """Under `ulimit -v` and `ulimit -d`."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = psutil.Process().memory_info()
    for name, taken in (("RLIMIT_AS", used.vms), ("RLIMIT_DATA", getattr(used, "data", used.rss))):
        limit = resource.getrlimit(getattr(resource, name))[0] if hasattr(resource, name) else resource.RLIM_INFINITY
        if limit != resource.RLIM_INFINITY:
            yield limit - taken


def _left_on_machine() -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError):
        yield int(psutil.virtual_memory().available)
        return
    # Without /proc/meminfo, as in some sandboxes.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        yield os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _machine_memory() -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError):
        yield int(psutil.virtual_memory().total)
        return
    with contextlib.suppress(AttributeError, OSError, ValueError):
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def explained_memory_errors() -> Iterator[None]:
    """Turn running out of memory, of a GPU or of the machine, into one line with the flags that help.

    Raises:
        DistillkitError: the code inside ran out of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DistillkitError(f"out of memory (peak {format_bytes(peak_memory_bytes())})", hint=_HINT) from error
    except RuntimeError as error:
        # The CPU allocator has no exception class of its own.
        if not any(message in str(error) for message in _OUT_OF_MEMORY):
            raise
        raise DistillkitError(f"out of memory (peak {format_bytes(peak_memory_bytes())})", hint=_HINT) from error
