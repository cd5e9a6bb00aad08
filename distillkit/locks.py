"""Locks between processes: of the system, which frees those of a process that dies; where a file system has none, by a
file that names its holder."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from distillkit.durability import NOT_SUPPORTED, note_weakness

# Long enough for the file of a process that has died to be recognised and taken over.
_TAKE_OVER_SECONDS = 1.0
_SUFFIX = ".held"


class Lock:
    """A lock at a path, whose folder exists.

    Args:
        path: of the lock file. It stays there; where the file system has no locks, `PATH.held` stands for the lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder_file = path.with_name(path.name + _SUFFIX)
        known = inspect.signature(filelock.FileLock).parameters
        settings: dict[str, Any] = {"fallback_to_soft": False} if "fallback_to_soft" in known else {}
        self._native = filelock.FileLock(path, **settings)
        self._by_file = filelock.SoftFileLock(self.holder_file)
        self._held: filelock.BaseFileLock | None = None

    def acquire(self, timeout: float = -1) -> None:
        """Take the lock.

        Args:
            timeout: seconds to wait for it; negative waits for ever.

        Raises:
            filelock.Timeout: somebody else has it.
            OSError: the lock file cannot be written.
        """
        try:
            self._native.acquire(timeout=timeout)
            self._held = self._native
        except NotImplementedError as error:
            self._acquire_by_file(timeout, str(error))
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise
            self._acquire_by_file(timeout, error.strerror or str(error))

    def _acquire_by_file(self, timeout: float, reason: str) -> None:
        note_weakness(
            "lock",
            f"the file system of {self.path} has no locks ({reason}): {self.holder_file.name} stands for the lock; should "
            "this process be killed and the run be continued on another machine, that file has to be removed by hand",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._by_file.acquire(timeout=timeout if timeout < 0 else max(timeout, _TAKE_OVER_SECONDS))
        self._held = self._by_file

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        held, self._held = self._held, None
        if held is not None:
            held.release()

    @contextlib.contextmanager
    def within(self, timeout: float) -> Iterator[None]:
        """Hold the lock, if it can be had in so many seconds; errors as in `acquire`."""
        self.acquire(timeout)
        try:
            yield
        finally:
            self.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
