"""What a file system cannot promise: networks and FUSE have no fsync of folders, or no locks. It is said once, and the work
goes on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Of calls that a file system does not have; an error of the disk itself (EIO, ENOSPC) is none of these.
NOT_SUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})

_said: set[str] = set()
_waiting: list[str] = []
_say: Callable[[str], None] | None = None


@contextlib.contextmanager
def weaknesses_reported(say: Callable[[str], None]) -> Iterator[None]:
    """Inside, each weakness of a file system is said once; also those that were met before there was anybody to say it."""
    global _say
    outer, _say = _say, say
    if outer is None:
        for line in _waiting:
            say(line)
    _waiting.clear()
    try:
        yield
    finally:
        _say = outer
        if outer is None:
            _said.clear()


def note_weakness(kind: str, line: str) -> None:
    """Say what is lost, unless it was said of this kind already."""
    if kind in _said:
        return
    _said.add(kind)
    if _say is not None:
        _say(line)
    else:
        _waiting.append(line)


def sync_file(descriptor: int, path: Path) -> None:
    """Make the content of an open file durable.

    Raises:
        OSError: the disk is full or broken.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        note_weakness("file", _lost(path, "files", error))


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable (on Windows there is no such call).

    Raises:
        OSError: the disk is full or broken.
    """
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError as error:
        # A folder that may be written and not listed.
        note_weakness("folder", _lost(folder, "folders", error))
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        note_weakness("folder", _lost(folder, "folders", error))
    finally:
        os.close(descriptor)


def _lost(path: Path, what: str, error: OSError) -> str:
    return (
        f"the file system of {path} cannot make {what} durable ({error.strerror}): should the machine itself crash, "
        "what was written last may be missing, and is then computed again; a run that is killed loses nothing"
    )
