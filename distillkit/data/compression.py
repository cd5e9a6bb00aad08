"""Files that are compressed -> their bytes: gzip, bzip2, xz, Zstandard, and files inside a zip archive.

What a file is packed with is told by its first bytes, whatever its name says.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from distillkit.errors import UsageError, first_line

ARCHIVE_SUFFIX = ".zip"
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ARCHIVE_SUFFIX)
_NAMES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "Zstandard", ARCHIVE_SUFFIX: "zip"}
# None of them begins a text in UTF-8 or UTF-16, or a file of another format that is read.
_MAGIC = {
    ".gz": b"\x1f\x8b\x08",
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ\0",
    ".zst": b"\x28\xb5\x2f\xfd",
    ARCHIVE_SUFFIX: b"PK\x03\x04",
}
# After "BZh" and a digit a block of bzip2 begins with these bytes, or the stream ends.
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")
_EMPTY_ARCHIVE = b"PK\x05\x06"
_HEAD_BYTES = 16
_BUFFER_BYTES = 1 << 17
# A text packed twice (`texts.jsonl.gz` in an archive) is read; what is packed more often was made to do harm.
_DEEPEST = 2


class Member(NamedTuple):
    """A file inside a zip archive: its name there, its size unpacked in bytes."""

    name: str
    size: int


def strip_packing(name: str) -> str:
    """A file's name without the suffixes of compression: "a.jsonl.zst" -> "a.jsonl"."""
    for _ in range(_DEEPEST):
        suffix = packed_suffix(name)
        name = name[: -len(suffix)] if suffix else name
    return name


def packed_suffix(name: str) -> str:
    """The suffix of compression that a name ends with, "" if there is none."""
    return next((suffix for suffix in PACKED_SUFFIXES if name.lower().endswith(suffix)), "")


def packing_of(head: bytes) -> str | None:
    """The suffix of the compression that the first bytes of a file tell, None for a file that is not packed."""
    if head.startswith(b"BZh"):
        return ".bz2" if head[4:10] in _BZIP2_BLOCKS else None
    if head.startswith(_EMPTY_ARCHIVE):
        return ARCHIVE_SUFFIX
    return next((suffix for suffix, magic in _MAGIC.items() if head.startswith(magic)), None)


def read_head(path: Path, name: str, length: int = _HEAD_BYTES) -> bytes:
    """The first bytes of a file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(length)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror or error})") from error


def is_archive(path: Path, name: str) -> bool:
    """Whether a file is a zip archive, by its first bytes.

    Raises:
        UsageError: it cannot be read.
    """
    return packing_of(read_head(path, name)) == ARCHIVE_SUFFIX


def archive_members(path: Path, name: str) -> list[Member]:
    """The files of a zip archive, by name.

    Raises:
        UsageError: it cannot be read, or is damaged.
    """
    with contextlib.ExitStack() as stack:
        archive = _open_archive(path, name, stack)
        members = {entry.filename: entry.file_size for entry in archive.infolist() if not entry.is_dir()}
    return [Member(*item) for item in sorted(members.items())]


def visible_members(path: Path, name: str) -> list[Member]:
    """The files of a zip archive without hidden ones and what some systems add (`__MACOSX`).

    Raises:
        UsageError: it cannot be read, or is damaged.
    """
    return [
        member
        for member in archive_members(path, name)
        if not any(part.startswith((".", "__")) for part in member.name.split("/"))
    ]


def _open_archive(path: Path, name: str, stack: contextlib.ExitStack, member: str | None = None) -> Any:
    """A zip archive, or the open stream of one of its files.

    Raises:
        UsageError: it cannot be read, is damaged, or the file is encrypted or packed in a way that is not known.
    """
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
        return archive if member is None else stack.enter_context(archive.open(member))
    except RuntimeError as error:  # Also NotImplementedError, for ways of packing that Python does not know.
        raise UsageError(f"{name}: {first_line(error)}", hint="unpack the archive first") from error
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, struct.error, ValueError, OverflowError, KeyError, EOFError, zlib.error) as error:
        raise _damaged(name, ARCHIVE_SUFFIX, error) from error


def _damaged(name: str, packing: str, error: BaseException) -> UsageError:
    return UsageError(
        f"{name}: damaged {_NAMES[packing]} file ({first_line(error)})", hint="fetch or pack the file again"
    )


@contextlib.contextmanager
def open_bytes(path: Path, name: str, member: str | None = None) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked.

    Args:
        name: what it is called in messages.
        member: the file of a zip archive that is meant.

    Raises:
        UsageError: it cannot be opened, or cannot be read or unpacked inside the block; the message names it.
    """
    packings: list[str] = []
    try:
        with contextlib.ExitStack() as stack:
            if member is None:
                stream: Any = stack.enter_context(path.open("rb"))
                expected = packed_suffix(path.name)
            else:
                packings.append(ARCHIVE_SUFFIX)
                stream = _open_archive(path, name, stack, member)
                expected = packed_suffix(member)
            for _ in range(_DEEPEST):
                packing = packing_of(stream.peek(_HEAD_BYTES)[:_HEAD_BYTES])
                if packing is None:
                    break
                packings.append(packing)
                if packing == ARCHIVE_SUFFIX and len(packings) == 1:
                    only = _only_member(path, name)
                    stream, expected = _open_archive(path, name, stack, only), packed_suffix(only)
                    continue
                stream = stack.enter_context(_unpacked(stream, packing, name))
                expected = ""
            if expected:
                raise UsageError(
                    f"{name}: not a {_NAMES[expected]} file, whatever its name says",
                    hint=f"rename it without {expected} if it is not packed at all; else fetch it again",
                )
            yield stream
    except (gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise _damaged(name, packings[-1] if packings else ".gz", error) from error
    except OSError as error:
        # bzip2 and Zstandard report damage as errors of the system without a number.
        if packings and error.errno is None:
            raise _damaged(name, packings[-1], error) from error
        raise UsageError(f"{name}: cannot be read ({error.strerror or error})") from error


def _unpacked(stream: Any, packing: str, name: str) -> Any:
    if packing == ".gz":
        return gzip.GzipFile(fileobj=stream)
    if packing == ".bz2":
        return bz2.BZ2File(stream)
    if packing == ".xz":
        return lzma.LZMAFile(stream)
    if packing == ".zst":
        return io.BufferedReader(_ZstandardFile(stream), _BUFFER_BYTES)
    raise UsageError(f"{name}: a zip archive inside a packed file is not read", hint="unpack it, and give the folder")


def _only_member(path: Path, name: str) -> str:
    """The one file in an archive that is read like a packed file.

    Raises:
        UsageError: it is damaged, or holds more or less.
    """
    inside = visible_members(path, name)
    if len(inside) != 1:
        raise UsageError(
            f"{name}: a zip archive with {len(inside):,} files, of which one is needed",
            hint="unpack it, and give the folder",
        )
    return inside[0].name


class _ZstandardFile(io.RawIOBase):
    """The unpacked bytes of a Zstandard stream, by Arrow: the standard library reads it from Python 3.14 on only."""

    def __init__(self, packed: Any) -> None:
        import pyarrow

        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(packed, mode="r"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
