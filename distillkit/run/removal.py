"""Removes runs: only whole runs that lie in the output directory itself, that nobody works on, and by one rename each.

A run is renamed first and deleted then. A process that is killed in between leaves a folder that is no run any more, and the
next removal finishes it. Links are removed as links, wherever they lead.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock

from distillkit.errors import PreconditionError, UsageError
from distillkit.locks import Lock
from distillkit.run.directory import LOCK, describe_holder, list_command, point_latest, unlock_hint
from distillkit.run.manifest import FILE_NAME
from distillkit.settings.paths import user_path
from distillkit.storage import TEMPORARY_PREFIX, explained_write_errors, remove_tree

_NAME_KEPT = 150  # bytes
_LEAVING_PREFIX = f"{TEMPORARY_PREFIX}removed-"


def run_folder(name: str, output_dir: Path) -> Path:
    """The folder of a run that may be removed.

    Args:
        name: of a folder in `output_dir`, or a path to one.

    Raises:
        UsageError: it is no run, lies elsewhere, or is a link.
    """
    hint = f"name runs of {output_dir}; see: {list_command(output_dir)}"
    plain = name.rstrip("/")
    folder = user_path(str(output_dir / plain), "runs rm")
    if Path(plain).name != plain:
        folder = user_path(plain, "runs rm")
        if folder.parent.resolve() != output_dir.resolve():
            raise UsageError(f"runs rm: {name!r} does not lie in {output_dir}", hint="name it with --output-dir DIR")
        folder = output_dir / folder.name
    if not plain or folder.name in (".", "..") or folder.name.startswith(TEMPORARY_PREFIX):
        raise UsageError(f"runs rm: {name!r} is no run", hint=hint)
    if folder.is_symlink():
        raise UsageError(f"runs rm: {name!r} is a link that leads elsewhere", hint=hint)
    if not folder.is_dir() or not (folder / FILE_NAME).is_file():
        raise UsageError(f"runs rm: there is no run {name!r} in {output_dir}", hint=hint)
    return folder


@contextlib.contextmanager
def held(folders: Sequence[Path]) -> Iterator[None]:
    """Hold runs, so that nobody begins to work on one while they are removed.

    Raises:
        PreconditionError: somebody works on one; none is held then.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(_hold(folder))
        yield


@contextlib.contextmanager
def _hold(folder: Path) -> Iterator[None]:
    lock = Lock(folder / LOCK)
    with explained_write_errors(folder / LOCK):
        try:
            lock.acquire(0)
        except filelock.Timeout as error:
            raise PreconditionError(
                f"{folder} is in use by {describe_holder(folder)}, so nothing was removed", hint=unlock_hint(lock)
            ) from error
    try:
        yield
    finally:
        lock.release()


def remove_run(folder: Path) -> None:
    """Delete a run that `held` holds; `latest` then names the newest one that is left, if it named this one.

    Raises:
        DistillkitError: it cannot be deleted; what is left of it is no run, and goes with the next removal.
    """
    with explained_write_errors(folder):
        # First, so that `latest` never names what is not there.
        point_latest(folder.parent, without=folder)
        # A name of the user's own may be as long as the system allows, so that nothing can be put before it.
        short = os.fsencode(folder.name)[:_NAME_KEPT].decode("utf-8", "ignore")
        leaving = folder.with_name(f"{_LEAVING_PREFIX}{short}")
        remove_tree(leaving)
        try:
            folder.rename(leaving)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Layers of a container's image cannot be renamed. The manifest goes last: until then it is found again.
            _delete(folder, last=FILE_NAME)
            return
        _delete(leaving, last=LOCK)


def unfinished_removals(output_dir: Path) -> list[Path]:
    """The folders that removals which were cut off have left."""
    found = sorted(output_dir.glob(f"{_LEAVING_PREFIX}*"))
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def finish_removals(output_dir: Path) -> list[Path]:
    """Delete what removals that were cut off have left, but for what another process is just removing.

    Returns:
        What was deleted.

    Raises:
        DistillkitError: it cannot be deleted.
    """
    finished: list[Path] = []
    for leaving in unfinished_removals(output_dir):
        with contextlib.suppress(PreconditionError), held([leaving]), explained_write_errors(leaving):
            _delete(leaving, last=LOCK)
            finished.append(leaving)
    return finished


def _delete(folder: Path, *, last: str) -> None:
    """Delete a folder, the file `last` after all others."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            remove_tree(path)
    folder.rmdir()
