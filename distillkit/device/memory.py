"""Memory: its peak, what is free, and an explanation where it does not suffice."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from distillkit.console import format_bytes
from distillkit.errors import DistillkitError

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
    free = [psutil.virtual_memory().available, *_left_of_limits(), *_left_in_container()]
    return max(0, min(free))


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


def _left_in_container(root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Under the memory limit of a container (cgroup version 2; files that can be dropped count as free)."""
    try:
        limit = (root / "memory.max").read_text().strip()
        if limit != "max":
            figures = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
            used = int((root / "memory.current").read_text()) - int(figures.get("inactive_file", 0))
            yield int(limit) - used
    except (OSError, ValueError):
        return


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
