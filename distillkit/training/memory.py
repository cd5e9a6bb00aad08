"""Memory: how much was used at most, and what to do when it does not suffice."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import psutil
import torch

from distillkit.console import format_bytes
from distillkit.errors import DistillkitError

_HINT = "lower --batch-size (and raise --gradient-accumulation to keep the result), or lower --max-length"


def peak_memory_bytes() -> int:
    """The most memory that this process has used: of the GPU where there is one, else of the machine."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows keeps the figure in another place
        return int(getattr(psutil.Process().memory_info(), "peak_wset", psutil.Process().memory_info().rss))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextlib.contextmanager
def explained_memory_errors() -> Iterator[None]:
    """Turn running out of memory, of a GPU or of the machine, into one line with the flags that help."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DistillkitError(f"out of memory (peak {format_bytes(peak_memory_bytes())})", hint=_HINT) from error
    except RuntimeError as error:
        # The CPU allocator has no exception class of its own.
        if "DefaultCPUAllocator" not in str(error) and "MPS backend out of memory" not in str(error):
            raise
        raise DistillkitError(f"out of memory (peak {format_bytes(peak_memory_bytes())})", hint=_HINT) from error
