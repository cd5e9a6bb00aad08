"""Checkpoints that count only once they are whole.

`checkpoints/step-50/` is valid through its COMMITTED.json alone: name, size and SHA-256 of every file (optimizer,
scheduler and random states included) and the fingerprint of the configuration and data it belongs to. That file is
written last; older checkpoints go only afterwards. What has no such file, or does not match it, is never loaded.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.errors import PreconditionError
from distillkit.storage import (
    explained_write_errors,
    file_records,
    files_below,
    read_json,
    records_problem,
    remove_leftovers,
    remove_tree,
    with_checksum,
    without_checksum,
    write_folder,
    write_json,
)

COMMIT_FILE = "COMMITTED.json"
KEEP = 2
# Without these a resumed run would silently differ from an undisturbed one.
REQUIRED = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "progress.json")

_KEYS = {"step", "fingerprint", "files"}
_NOT_COMMITTED = "it was not committed"
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Found:
    """What looking for a checkpoint gave: the newest valid one, and why each newer one was passed over."""

    path: Path | None
    passed_over: tuple[str, ...]


def checkpoint_folder(root: Path, step: int) -> Path:
    return root / f"step-{step}"


def commit(folder: Path, step: int, fingerprint: str) -> None:
    """Write COMMITTED.json into a folder whose files are all there and synced."""
    content = {"step": step, "fingerprint": fingerprint, "files": file_records(folder, files_below(folder))}
    write_json(folder / COMMIT_FILE, with_checksum(content))


def write(root: Path, step: int, fingerprint: str, fill: Callable[[Path], None], expected_bytes: int) -> None:
    """Commit the checkpoint of a step, then let go of older ones.

    Args:
        fill: puts its files into a folder.
        expected_bytes: how much that will be, about.

    Raises:
        DistillkitError: it cannot be written.
    """

    def committed(folder: Path) -> None:
        with _no_second_checksums():
            fill(folder)
        commit(folder, step, fingerprint)

    write_folder(checkpoint_folder(root, step), committed, expected_bytes)
    prune(root)


@contextlib.contextmanager
def _no_second_checksums() -> Iterator[None]:
    """torch.save computes a CRC32 of every tensor, which takes three times as long as writing them; `commit` notes the SHA-256
    of every file."""
    from torch.serialization import get_crc32_options, set_crc32_options

    before = get_crc32_options()
    set_crc32_options(False)
    try:
        yield
    finally:
        set_crc32_options(before)


def _step_of(folder: Path) -> int | None:
    match = _NAME.fullmatch(folder.name)
    return int(match.group(1)) if match else None


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _steps(root: Path) -> list[tuple[int, Path]]:
    """(step, folder) of everything that looks like a checkpoint, newest first; links are not ours."""
    if not root.is_dir():
        return []
    folders = []
    for path in root.iterdir():
        step = _step_of(path)
        if step is not None and path.is_dir() and not path.is_symlink():
            folders.append((step, path))
    return sorted(folders, reverse=True)


def read_commit(folder: Path) -> dict[str, Any] | None:
    """The content of COMMITTED.json, or None where there is none that can be read."""
    try:
        content = read_json(folder / COMMIT_FILE)
        if set(content) != _KEYS:  # distillkit 0.1.0 wrote no checksum
            content = without_checksum(content)
        records_whole = isinstance(content["files"], list) and all(
            isinstance(record["path"], str) and isinstance(record["size"], int) and isinstance(record["sha256"], str)
            for record in content["files"]
        )
        return content if records_whole and isinstance(content["fingerprint"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def problem(folder: Path) -> str | None:
    """Why a checkpoint cannot be resumed from, or None."""
    content = read_commit(folder)
    if content is None:
        return f"{COMMIT_FILE} is damaged" if (folder / COMMIT_FILE).exists() else _NOT_COMMITTED
    if content.get("step") != _step_of(folder):
        return f"{COMMIT_FILE} is of another step"
    names = {record["path"] for record in content["files"]}
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        return f"{missing[0]} is not part of it"
    return records_problem(folder, content["files"])


def newest_valid(root: Path, fingerprint: str) -> Found:
    """The newest checkpoint to resume from.

    Raises:
        PreconditionError: there are checkpoints but none is whole, or the whole one belongs to another configuration
            or other data. A fresh start must be asked for.
    """
    passed_over: list[str] = []
    for _, folder in _steps(root):
        reason = problem(folder)
        if reason is not None:
            passed_over.append(f"{folder.name}: {reason}")
            continue
        content = read_commit(folder)
        if content is None or content["fingerprint"] != fingerprint:
            raise PreconditionError(
                f"{folder} belongs to another configuration or other data", hint="start anew with --force"
            )
        return Found(folder, tuple(passed_over))
    committed = [words for words in passed_over if not words.endswith(_NOT_COMMITTED)]
    if committed:
        raise PreconditionError(
            f"no checkpoint in {root} can be resumed from ({'; '.join(passed_over)})", hint="start anew with --force"
        )
    return Found(None, tuple(passed_over))


def continue_from(root: Path, fingerprint: str, console: Console) -> Path | None:
    """The checkpoint that an attempt goes on from, if there is one; says which newer ones it cannot use.

    Raises:
        PreconditionError: as `newest_valid`.
    """
    search = newest_valid(root, fingerprint)
    for words in search.passed_over:
        console.warn(f"ignored checkpoint {words}")
    if search.path is not None:
        prune(root, newest=search.path)  # An earlier attempt may have been killed while it did.
    return search.path


def prune(root: Path, keep: int = KEEP, newest: Path | None = None) -> None:
    """Delete what is older than the newest `keep` committed checkpoints, and what was never committed.

    Args:
        newest: the newest that is whole, where newer ones are known not to be: these neither count nor go.
    """
    kept = 0
    with explained_write_errors(root):
        for step, folder in _steps(root):
            if newest is not None and step > _step(newest):
                continue
            if read_commit(folder) is None or kept >= keep:
                remove_tree(folder)
            else:
                kept += 1
    remove_leftovers(root)


def newest(root: Path) -> Path | None:
    """The newest committed checkpoint, whatever it belongs to."""
    return next((folder for _, folder in _steps(root) if read_commit(folder) is not None), None)
