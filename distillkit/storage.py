"""Writing that survives a crash: temporary file in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from distillkit.durability import note_weakness, sync_file, sync_folder
from distillkit.errors import DistillkitError

TEMPORARY_PREFIX = ".tmp-"
_OUTGOING_PREFIX = f"{TEMPORARY_PREFIX}old-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Bytes from which on a digest is remembered: less is read in no time.
_LARGE = 1 << 20
# Digests of large files that this process has read, by what the system changes with a file's content.
_known_digests: dict[tuple[int, ...], str] = {}
# Two writes within one tick of a file system's clock leave the same time. These have finer ones than 20 ms, or whole seconds.
_CLOCK_TICK_NS, _SECOND_NS = 20_000_000, 1_000_000_000
# Errors of the disk itself, whatever the program does.
_DISK_ERRORS = (*_FULL, errno.EIO, errno.EROFS)


@contextlib.contextmanager
def explained_write_errors(path: Path, bytes_needed: int | None = None, *, about: bool = False) -> Iterator[None]:
    """Turn an OSError of the block into one line that names the path.

    Args:
        bytes_needed: how many bytes the write takes, where that is known.
        about: whether `bytes_needed` is an estimate.

    Raises:
        DistillkitError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise _write_error(path, error, bytes_needed, about) from error


def _write_error(path: Path, error: OSError, bytes_needed: int | None = None, about: bool = False) -> DistillkitError:
    if error.errno in _FULL:
        needed = f", {'about ' if about else ''}{bytes_needed:,} bytes are needed" if bytes_needed else ""
        return DistillkitError(
            f"no space left while writing {path}{needed}", hint="free some space, or choose another --output-dir"
        )
    return DistillkitError(
        f"cannot write {path}: {error.strerror or error}",
        hint="check the disk and the folder's permissions, or choose another --output-dir",
    )


@contextlib.contextmanager
def explained_disk_errors(folder: Path) -> Iterator[None]:
    """Like `explained_write_errors`, for a block that does other things too: only a full, broken or read-only disk is
    explained. The line names the file that the system named, else `folder`.

    Raises:
        DistillkitError: the disk is full, broken or read-only.
        OSError: anything else that the block raised.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        named = error.filename2 or error.filename
        raise _write_error(
            Path(os.fsdecode(named)) if named and not isinstance(named, int) else folder, error
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where it is missing.

    Raises:
        DistillkitError: it cannot be made.
    """
    with explained_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


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
                sync_file(stream.fileno(), path)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Like `write_bytes`, for JSON.

    Raises:
        DistillkitError: as `write_bytes`.
        ValueError: `value` holds NaN or infinity, which JSON does not have.
    """
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8"))


def write_folder(final: Path, fill: Callable[[Path], None], bytes_needed: int | None = None) -> None:
    """Build a folder elsewhere with `fill(temporary)`, sync every file, then put it in the place of `final`.

    Args:
        fill: writes the files into the folder that it is given.
        bytes_needed: about how many bytes the folder takes, for the error, where that is known.

    Raises:
        DistillkitError: the disk is full or the place cannot be written; `final` is then as it was.
    """
    temporary = final.with_name(f"{TEMPORARY_PREFIX}{final.name}")
    outgoing = final.with_name(f"{_OUTGOING_PREFIX}{final.name}")
    with explained_write_errors(final, bytes_needed, about=True):
        final.parent.mkdir(parents=True, exist_ok=True)
        remove_tree(temporary)
        try:
            temporary.mkdir()
            fill(temporary)
            for path in files_below(temporary):
                with path.open("rb+") as stream:
                    sync_file(stream.fileno(), final)
            for folder in {path.parent for path in files_below(temporary)} | {temporary}:
                sync_folder(folder)
            remove_tree(outgoing)
            if final.exists():
                _move_away(final, outgoing)
            temporary.rename(final)
        except BaseException:
            # The old state first: it must come back even where nothing can be deleted any more.
            with contextlib.suppress(OSError):
                _put_back(outgoing, final)
            with contextlib.suppress(OSError):
                remove_tree(temporary)
            raise
        sync_folder(final.parent)
        remove_tree(outgoing)


def write_file(final: Path, fill: Callable[[Path], None], bytes_needed: int | None = None) -> None:
    """Write a file that is too large for memory with `fill(temporary)`, sync it, then put it in the place of `final`.

    Args:
        fill: writes the file that it is given; the name has the ending of `final`.
        bytes_needed: how many bytes the file takes, for the error, where that is known.

    Raises:
        DistillkitError: the disk is full or the place cannot be written; `final` is then as it was.
    """
    temporary = final.with_name(f"{TEMPORARY_PREFIX}{final.name}")
    with explained_write_errors(final, bytes_needed):
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            fill(temporary)
            with temporary.open("rb+") as stream:
                sync_file(stream.fileno(), final)
            temporary.replace(final)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(final.parent)


def _move_away(final: Path, outgoing: Path) -> None:
    try:
        final.rename(outgoing)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Layers of a container's image cannot be renamed, but they can be deleted.
        note_weakness(
            "rename",
            f"the file system of {final} cannot rename it ({error.strerror}), so it is deleted before its successor is put "
            "in its place: should this process be killed in between, the stage has to be done again",
        )
        remove_tree(final)


def _put_back(outgoing: Path, final: Path) -> None:
    if outgoing.exists() and not final.exists():
        outgoing.rename(final)


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete what a process that was killed was writing directly in `folder`; nobody may be writing there now. A folder
    that was on its way out when its successor was not yet in comes back.

    Returns:
        What was deleted.

    Raises:
        DistillkitError: it cannot be deleted.
    """
    deleted: list[Path] = []
    with explained_write_errors(folder):
        for path in sorted(folder.glob(f"{TEMPORARY_PREFIX}*")):
            if path.name.startswith(_OUTGOING_PREFIX):
                _put_back(path, path.with_name(path.name.removeprefix(_OUTGOING_PREFIX)))
            if path.is_dir():
                remove_tree(path)
            elif path.exists() or path.is_symlink():
                path.unlink()
            else:
                continue
            deleted.append(path)
    return deleted


def remove_tree(path: Path) -> None:
    """Delete a folder if it is there; a link is removed as a link and never followed.

    Raises:
        OSError: it cannot be deleted.
    """
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def files_below(folder: Path) -> list[Path]:
    """Every regular file below `folder`, sorted; links are not followed."""
    files: list[Path] = []
    for root, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        files += [Path(root) / name for name in names]
    return sorted(path for path in files if path.is_file() and not path.is_symlink())


def bytes_below(folder: Path) -> int:
    """What the files below `folder` hold; 0 where it is not there."""
    return sum(path.stat().st_size for path in files_below(folder))


def nearest_existing(path: Path) -> Path:
    """`path` if it exists, else the nearest of its parents that does: where it would be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_disk_bytes(folder: Path) -> int:
    """Free bytes of the disk on which `folder` lies, or would lie.

    Raises:
        OSError: the system does not know the disk.
    """
    return shutil.disk_usage(nearest_existing(folder)).free


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, as hex. A large file that this process has read and nobody has written since is not read again:
    every stage of a run asks for the files of those before it.

    Raises:
        OSError: the file cannot be read.
    """
    # hashlib.file_digest came with Python 3.11.
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        before = os.fstat(stream.fileno())
        state, settled = _state(before), _is_settled(before)
        if state in _known_digests:
            return _known_digests[state]
        while block := stream.read(1 << 20):
            digest.update(block)
        if settled and before.st_size >= _LARGE and _state(os.fstat(stream.fileno())) == state:
            _known_digests[state] = digest.hexdigest()
    return digest.hexdigest()


def _state(status: os.stat_result) -> tuple[int, ...]:
    """What differs where another file is put in the place of one, or it is written to."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_settled(status: os.stat_result) -> bool:
    """Whether writing to a file from now on would change its time."""
    whole_seconds = status.st_mtime_ns % _SECOND_NS == 0
    return not whole_seconds and time.time_ns() - status.st_mtime_ns > _CLOCK_TICK_NS


def fingerprint_of(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form, as hex."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError, ValueError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def with_checksum(content: dict[str, Any]) -> dict[str, Any]:
    """`content` with the SHA-256 of itself as `checksum`, for small files of which every byte matters."""
    return {**content, "checksum": fingerprint_of(content)}


def without_checksum(content: Any) -> dict[str, Any]:
    """The content that `with_checksum` was given.

    Raises:
        ValueError: the checksum is missing or another one: the content is not what was written.
    """
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    plain = {name: value for name, value in content.items() if name != "checksum"}
    if content.get("checksum") != fingerprint_of(plain):
        raise ValueError("its checksum does not match")
    return plain


def file_records(root: Path, paths: Iterable[Path]) -> list[dict[str, Any]]:
    """`{path, size, sha256}` of files, the paths relative to `root` with forward slashes.

    Raises:
        OSError: a file cannot be read.
    """
    return [
        {"path": path.relative_to(root).as_posix(), "size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(paths)
    ]


def records_problem(root: Path, records: Iterable[dict[str, Any]]) -> str | None:
    """The first of the files recorded by `file_records` that is missing or changed, as a clause; None if all are as recorded.

    Raises:
        OSError: a file cannot be read.
    """
    for record in records:
        path = root / record["path"]
        if not path.is_file():
            return f"{record['path']} is missing"
        if path.stat().st_size != record["size"]:
            return f"{record['path']} has {path.stat().st_size:,} bytes instead of {record['size']:,}"
        if sha256_of(path) != record["sha256"]:
            return f"{record['path']} has changed (its sha256 differs)"
    return None
