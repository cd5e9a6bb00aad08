"""The teacher caches of an output directory as `distillkit cache` lists and prunes them; needs no torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from distillkit.errors import PreconditionError
from distillkit.locks import Lock
from distillkit.storage import files_below, read_json, remove_tree

FOLDER = ".teacher-cache"


def lock_of(folder: Path) -> Lock:
    """The lock of those who write a cache."""
    return Lock(folder.with_name(f"{folder.name}.lock"))


def note_use(folder: Path) -> None:
    """Note that a cache is in use now, for those who prune by age."""
    # Somebody else's cache may be read but not touched: its age is then that of its last writing.
    with contextlib.suppress(OSError):
        os.utime(folder / "meta.json")


@dataclass(frozen=True)
class CacheEntry:
    """A cache as `distillkit cache` shows it.

    Attributes:
        folder: of it; its name is the cache's.
        teacher: as the run named it.
        kind: exact or sparse.
        tokens: that the teacher has read, or is to read.
        bytes: on the disk.
        used: when it was last written or read, seconds since the epoch.
    """

    folder: Path
    teacher: str
    kind: str
    tokens: int
    bytes: int
    used: float


def list_caches(root: Path) -> list[CacheEntry]:
    """All caches below `root`, the one unused for longest first."""
    return sorted(_entries(root), key=lambda entry: entry.used)


def _entries(root: Path) -> Iterator[CacheEntry]:
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.is_symlink() or not folder.is_dir():
            continue
        try:
            meta: dict[str, Any] = read_json(folder / "meta.json")
            teacher, kind, tokens = str(meta["teacher"]), str(meta["kind"]), int(meta["tokens"])
        except (OSError, ValueError, KeyError, TypeError):
            teacher, kind, tokens = "unreadable", "?", 0
        files = files_below(folder)
        used = max([path.stat().st_mtime for path in files], default=folder.stat().st_mtime)
        yield CacheEntry(folder, teacher, kind, tokens, sum(path.stat().st_size for path in files), used)


def delete_cache(entry: CacheEntry) -> None:
    """Delete a cache that nobody is writing.

    Raises:
        PreconditionError: somebody is.
    """
    lock = lock_of(entry.folder)
    try:
        with lock.within(0):
            remove_tree(entry.folder)
    except filelock.Timeout as error:
        raise PreconditionError(f"{entry.folder} is being written", hint="wait for that run, or stop it") from error
    lock.path.unlink(missing_ok=True)
