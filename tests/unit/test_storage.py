"""Writes that leave either the old or the new state."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from distillkit import storage
from distillkit.errors import DistillkitError


def test_write_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        storage.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_write_file_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    final = tmp_path / "new" / "model.gguf"
    storage.write_file(final, lambda path: path.write_bytes(b"1") and None)

    def fails(path: Path) -> None:
        assert path.parent == final.parent  # a rename, not a copy
        assert path.suffix == ".gguf"
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.write_file(final, fails)
    assert {path.name: path.read_bytes() for path in final.parent.iterdir()} == {"model.gguf": b"1"}


def test_write_folder_replaces_whole(tmp_path: Path) -> None:
    final = tmp_path / "student"
    storage.write_folder(final, lambda folder: [(folder / name).write_text("1") for name in ("a", "b")])
    storage.write_folder(final, lambda folder: (folder / "a").write_text("2"))
    assert {path.name: path.read_text() for path in final.iterdir()} == {"a": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_write_folder_keeps_old_on_failure(tmp_path: Path) -> None:
    final = tmp_path / "student"
    storage.write_folder(final, lambda folder: (folder / "a").write_text("1"))

    def fail(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DistillkitError, match="no space left"):
        storage.write_folder(final, fail)
    assert (final / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_full_disk_names_path_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DistillkitError, match=r"a\.bin.*5 bytes"):
        storage.write_bytes(target, b"12345")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    link = tmp_path / "link"
    link.symlink_to(outside)
    storage.remove_tree(link)
    assert (outside / "precious").exists()
    assert not link.exists()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inside").symlink_to(outside)
    assert storage.files_below(folder) == []


def test_records_notice_every_change(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    records = storage.file_records(tmp_path, [tmp_path / "a"])
    assert storage.records_problem(tmp_path, records) is None
    (tmp_path / "a").write_bytes(b"two")
    assert "changed" in str(storage.records_problem(tmp_path, records))
    (tmp_path / "a").write_bytes(b"three")
    assert "bytes" in str(storage.records_problem(tmp_path, records))
    (tmp_path / "a").unlink()
    assert "missing" in str(storage.records_problem(tmp_path, records))


def test_leftovers_go_and_what_was_on_its_way_out_comes_back(tmp_path: Path) -> None:
    for name in (".tmp-old-best", ".tmp-best", ".tmp-old-final", "final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    (tmp_path / ".tmp-manifest.json").write_text("{")
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "final")
    deleted = {path.name for path in storage.remove_leftovers(tmp_path)}
    assert deleted == {".tmp-best", ".tmp-old-final", ".tmp-manifest.json", ".tmp-link"}
    assert {path.name: (path / "weights").read_text() for path in tmp_path.iterdir()} == {
        "best": ".tmp-old-best",
        "final": "final",
    }


def test_the_old_folder_comes_back_though_nothing_can_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "student"
    storage.write_folder(final, lambda folder: (folder / "a").write_text("1"))
    rename = Path.rename

    def fail_once_then_read_only(self: Path, target: Path) -> Path:
        if self.name == ".tmp-student":
            monkeypatch.setattr(storage, "remove_tree", read_only)
            raise OSError(5, "Input/output error")
        return rename(self, target)

    def read_only(path: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", fail_once_then_read_only)
    with pytest.raises(DistillkitError, match=r"cannot write .*student"):
        storage.write_folder(final, lambda folder: (folder / "a").write_text("2"))
    assert (final / "a").read_text() == "1"


def test_where_something_would_be_made(tmp_path: Path) -> None:
    assert storage.nearest_existing(tmp_path) == tmp_path
    assert storage.nearest_existing(tmp_path / "a" / "b") == tmp_path
    assert storage.nearest_existing(Path("not-there/either")) == Path()
    (tmp_path / "file").write_text("")
    assert storage.nearest_existing(tmp_path / "file" / "run") == tmp_path / "file"
    assert storage.free_disk_bytes(tmp_path / "a" / "b") > 0


_LARGE = 3 << 20


class _Counting:
    """A SHA-256 that notes how much it is given."""

    seen = 0

    def __init__(self) -> None:
        self._real = hashlib.sha256()

    def update(self, block: bytes) -> None:
        _Counting.seen += len(block)
        self._real.update(block)

    def hexdigest(self) -> str:
        return self._real.hexdigest()


def _digest(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """What `sha256_of` says, and how many bytes it has read for that."""
    _Counting.seen = 0
    with monkeypatch.context() as patch:
        patch.setattr(storage, "hashlib", type("hashlib", (), {"sha256": _Counting}))
        return storage.sha256_of(path), _Counting.seen


def _written(path: Path, content: bytes) -> Path:
    """A file that was written a second ago, and not at a whole one."""
    path.write_bytes(content)
    then = time.time_ns() // 1000 * 1000 + 1 - 1_000_000_000
    os.utime(path, ns=(then, then))
    return path


def test_a_large_file_is_read_once_and_a_small_one_always(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size, again in ((_LARGE, 0), (1000, 1000)):
        path = _written(tmp_path / str(size), b"1" * size)
        expected = hashlib.sha256(b"1" * size).hexdigest()
        assert _digest(path, monkeypatch) == (expected, size)
        assert _digest(path, monkeypatch) == (expected, again)


def test_a_large_file_that_is_written_to_or_replaced_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _written(tmp_path / "weights", b"1" * _LARGE)
    _digest(path, monkeypatch)
    times = path.stat().st_mtime_ns
    with path.open("rb+") as stream:
        stream.write(b"2")
    os.utime(path, ns=(times, times))  # as tools do that keep times
    damaged = hashlib.sha256(b"2" + b"1" * (_LARGE - 1)).hexdigest()
    assert _digest(path, monkeypatch) == (damaged, _LARGE)
    _written(tmp_path / "other", b"3" * _LARGE).replace(path)
    assert _digest(path, monkeypatch)[0] == hashlib.sha256(b"3" * _LARGE).hexdigest()


@pytest.mark.parametrize("written", ["a moment ago", "at a whole second"])
def test_a_large_file_is_read_again_where_its_time_proves_nothing(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _written(tmp_path / "weights", b"1" * _LARGE)
    if written == "at a whole second":
        os.utime(path, ns=(10**18, 10**18))
    else:
        monkeypatch.setattr(storage.time, "time_ns", lambda: path.stat().st_mtime_ns + 1_000_000)
    assert _digest(path, monkeypatch)[1] == _LARGE
    assert _digest(path, monkeypatch)[1] == _LARGE
