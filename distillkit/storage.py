"""Writing that survives a crash: temporary file in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from distillkit.errors import DistillkitError

TEMPORARY_PREFIX = ".tmp-"


@contextlib.contextmanager
def explained_write_errors(path: Path, bytes_needed: int | None = None) -> Iterator[None]:
    """Turn an OSError of the block into one line that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            needed = f", {bytes_needed:,} bytes are needed" if bytes_needed else ""
            raise DistillkitError(
                f"no space left while writing {path}{needed}", hint="free some space, or choose another --output-dir"
            ) from error
        raise DistillkitError(
            f"cannot write {path}: {error.strerror or error}",
            hint="check the folder's permissions, or choose another --output-dir",
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable (where the system has such a notion)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: afterwards either the old file or the whole new one is there.

    Raises:
        DistillkitError: the disk is full or the place cannot be written; nothing partial is left.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    with explained_write_errors(path, len(content)):
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Like `write_bytes`, for JSON; NaN and infinity are refused because JSON has neither."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8"))


def write_folder(final: Path, fill: Callable[[Path], None]) -> None:
    """Build a folder elsewhere with `fill(temporary)`, sync every file, then put it in the place of `final`.

    Raises:
        DistillkitError: the disk is full or the place cannot be written; `final` is then as it was.
    """
    temporary = final.with_name(f"{TEMPORARY_PREFIX}{final.name}")
    outgoing = final.with_name(f"{TEMPORARY_PREFIX}old-{final.name}")
    with explained_write_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        remove_tree(temporary)
        try:
            temporary.mkdir()
            fill(temporary)
            for path in files_below(temporary):
                with path.open("rb+") as stream:
                    os.fsync(stream.fileno())
            for folder in {path.parent for path in files_below(temporary)} | {temporary}:
                sync_folder(folder)
            remove_tree(outgoing)
            if final.exists():
                final.rename(outgoing)
            temporary.rename(final)
        except BaseException:
            with contextlib.suppress(OSError):
                remove_tree(temporary)
                if outgoing.exists() and not final.exists():
                    outgoing.rename(final)
            raise
        sync_folder(final.parent)
        remove_tree(outgoing)


def remove_tree(path: Path) -> None:
    """Delete a folder if it is there; a link is removed as a link and never followed."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def files_below(folder: Path) -> list[Path]:
    """Every regular file below `folder`, sorted; links are not followed."""
    found: list[Path] = []
    for root, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        found += [Path(root) / name for name in names]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint_of(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form, as hex."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def file_records(root: Path, paths: Iterable[Path]) -> list[dict[str, Any]]:
    """`{path, size, sha256}` of files, the paths relative to `root` with forward slashes."""
    return [
        {"path": path.relative_to(root).as_posix(), "size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(paths)
    ]


def records_problem(root: Path, records: Iterable[dict[str, Any]]) -> str | None:
    """What is wrong with files recorded by `file_records`: the first missing or changed one, or None."""
    for record in records:
        path = root / record["path"]
        if not path.is_file():
            return f"{record['path']} is missing"
        if path.stat().st_size != record["size"]:
            return f"{record['path']} has {path.stat().st_size:,} bytes instead of {record['size']:,}"
        if sha256_of(path) != record["sha256"]:
            return f"{record['path']} has changed (its sha256 differs)"
    return None
