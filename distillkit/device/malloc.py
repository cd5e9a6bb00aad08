"""Keeping freed memory in the process while models compute on the CPU.

By default glibc returns freed memory to the system as soon as it can, and the system has to clear every page of it
again for the next layer. Training needs the same memory all the time, so it is kept.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

# Parameters of mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Bytes. Larger blocks are always returned at once; glibc accepts no higher threshold.
_LARGEST_KEPT = 32 << 20
_ALWAYS, _USUAL = 2**31 - 1, 2 * _LARGEST_KEPT


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside, freed blocks up to 32 MiB stay in the process; afterwards free memory is returned to the system.

    Does nothing where the C library is another one, or where the user has tuned it.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
    library.mallopt(_TRIM_THRESHOLD, _ALWAYS)
    try:
        yield
    finally:
        library.mallopt(_TRIM_THRESHOLD, _USUAL)
        library.malloc_trim(0)


def trim_heap() -> None:
    """Return free memory to the system, after something large has been dropped for good."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") and name.endswith("_") for name in os.environ
    )
    try:
        glibc = os.confstr("CS_GNU_LIBC_VERSION") is not None
    except (AttributeError, ValueError, OSError):  # Windows, macOS, musl
        glibc = False
    if tuned or not glibc:
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
