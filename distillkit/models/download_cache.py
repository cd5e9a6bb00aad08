"""The cache of downloaded and converted models: where it lies, and filling a folder of it by one process at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs
from filelock import Timeout

from distillkit.console import Console
from distillkit.errors import DistillkitError
from distillkit.interrupts import check_interrupted
from distillkit.locks import Lock
from distillkit.storage import explained_write_errors


def cache_folder() -> Path:
    """Where downloads and conversions are kept: DISTILLKIT_CACHE, else the user's cache folder."""
    configured = os.environ.get("DISTILLKIT_CACHE")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_cache_dir("distillkit"))


@contextlib.contextmanager
def filling(folder: Path, console: Console) -> Iterator[None]:
    """Alone fill a folder of the cache: other processes wait, and find it filled.

    Raises:
        DistillkitError: the cache cannot be written.
    """
    try:
        with explained_write_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = Lock(folder.with_name(f"{folder.name}.lock"))
            _acquire(lock, folder, console)
        try:
            yield
        finally:
            lock.release()
    except DistillkitError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        hint = "free some space, or set DISTILLKIT_CACHE to another folder"
        raise DistillkitError(error.message, hint=hint) from error.__cause__


def _acquire(lock: Lock, folder: Path, console: Console) -> None:
    waiting = False
    while True:
        check_interrupted()
        try:
            lock.acquire(timeout=0.5)
            return
        except Timeout:
            if not waiting:
                console.info(f"another process is filling {folder}: waiting for it")
            waiting = True
