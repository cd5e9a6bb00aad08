"""Packed files are unpacked whatever their names say, and damaged ones refused in one line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
from pathlib import Path

import pyarrow
import pytest

from distillkit.data.compression import archive_members, open_bytes, packing_of, strip_packing
from distillkit.errors import UsageError

CONTENT = "".join(f"Zeile {number}: äöü 漢字\n" for number in range(3000)).encode()


def zipped(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


def zstandard(content: bytes) -> bytes:
    return pyarrow.Codec("zstd").compress(content, asbytes=True)


PACKED = {
    ".gz": gzip.compress(CONTENT, mtime=0),
    ".bz2": bz2.compress(CONTENT),
    ".xz": lzma.compress(CONTENT),
    ".zst": zstandard(CONTENT),
}


def read(path: Path, member: str | None = None) -> bytes:
    with open_bytes(path, path.name, member) as stream:
        return b"".join(iter(lambda: stream.read(1000), b""))


@pytest.mark.parametrize("suffix", PACKED)
def test_every_compression_is_unpacked_under_any_name(tmp_path: Path, suffix: str) -> None:
    for name in (f"a.txt{suffix}", "a.txt", "a.txt.gz"):
        path = tmp_path / name
        path.write_bytes(PACKED[suffix])
        assert read(path) == CONTENT
        # Parts that were packed one after another are one text.
        path.write_bytes(PACKED[suffix] * 2)
        assert read(path) == CONTENT * 2


def test_files_in_archives_are_read_packed_or_not(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(
        zipped({"x/plain.txt": CONTENT, "x/packed.txt.zst": PACKED[".zst"], "y.txt.gz": PACKED[".gz"], "dir/": b""})
    )
    assert [member.name for member in archive_members(path, "a.zip")] == ["x/packed.txt.zst", "x/plain.txt", "y.txt.gz"]
    for member in archive_members(path, "a.zip"):
        assert read(path, member.name) == CONTENT


@pytest.mark.parametrize(("suffix", "name"), [(".gz", "gzip"), (".bz2", "bzip2"), (".xz", "xz"), (".zst", "Zstandard")])
def test_cut_off_files_are_refused(tmp_path: Path, suffix: str, name: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(PACKED[suffix][:-20])
    with pytest.raises(UsageError, match=rf"^a\.txt\{suffix}: damaged {name} file \("):
        read(path)
    path.write_bytes(b"A text that nobody packed.")
    with pytest.raises(UsageError, match=f"not a {name} file, whatever its name says"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(UsageError, match=f"not a {name} file"):
        read(path)


def test_damaged_and_locked_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    sound = zipped({"a.txt": CONTENT})
    path.write_bytes(sound[:-30])
    with pytest.raises(UsageError, match=r"^a\.zip: damaged zip file"):
        archive_members(path, "a.zip")
    garbled = bytearray(sound)
    garbled[200:220] = os.urandom(20)
    path.write_bytes(bytes(garbled))
    with pytest.raises(UsageError, match=r"^a\.zip: damaged zip file"):
        read(path, "a.txt")
    encrypted = bytearray(sound)
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):  # the flags of a member, where it lies and in the index
        encrypted[encrypted.index(mark) + (6 if mark[2] == 3 else 8)] |= 1
    path.write_bytes(bytes(encrypted))
    with pytest.raises(UsageError, match="encrypted, password required"):
        read(path, "a.txt")


def test_an_archive_of_one_file_is_read_like_a_packed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zip"
    path.write_bytes(zipped({"a.jsonl": CONTENT, "__MACOSX/._a.jsonl": b"\0"}))
    assert read(path) == CONTENT
    path.write_bytes(zipped({"a.jsonl.xz": PACKED[".xz"]}))
    assert read(path) == CONTENT
    path.write_bytes(zipped({"a.jsonl": CONTENT, "b.jsonl": CONTENT}))
    with pytest.raises(UsageError, match="a zip archive with 2 files, of which one is needed"):
        read(path)
    (tmp_path / "b.zip.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UsageError, match="a zip archive inside a packed file is not read"):
        read(tmp_path / "b.zip.gz")


def test_texts_are_not_taken_for_packed_ones() -> None:
    for head in (b"BZh is a word", b"BZh91 is one too, or not", b"PK", b"", CONTENT[:16], b"PAR1", b"\xff\xfea\0"):
        assert packing_of(head) is None
    assert packing_of(bz2.compress(b"")) == ".bz2"


def test_suffixes_of_compression_are_looked_through() -> None:
    names = {"a.jsonl.zst": "a.jsonl", "a.TXT.GZ": "a.TXT", "a.txt.gz.zip": "a.txt", "a.txt": "a.txt", "zst": "zst"}
    assert {name: strip_packing(name) for name in names} == names


def test_nothing_stays_open(tmp_path: Path) -> None:
    before = _open_files()
    for suffix, content in {**PACKED, ".zip": zipped({"a.txt": CONTENT})}.items():
        path = tmp_path / f"a.txt{suffix}"
        member = "a.txt" if suffix == ".zip" else None
        path.write_bytes(content)
        read(path, member)
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(UsageError):
            read(path, member)
    assert _open_files() == before


def _open_files() -> int:
    """How many files this process has open, where the system tells."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
