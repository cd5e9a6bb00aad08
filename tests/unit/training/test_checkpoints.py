"""Which checkpoints count, and which are deleted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.serialization import get_crc32_options

from distillkit.errors import PreconditionError
from distillkit.storage import TEMPORARY_PREFIX
from distillkit.training import checkpoints
from distillkit.training.checkpoints import COMMIT_FILE, REQUIRED, Found, newest_valid, prune


def make(root: Path, step: int, fingerprint: str = "ours", without: str | None = None) -> Path:
    """A committed checkpoint whose files hold anything."""
    folder = checkpoints.checkpoint_folder(root, step)
    folder.mkdir(parents=True)
    for name in {*REQUIRED, "model.safetensors"} - {without}:
        (folder / name).write_text(f"{name} of step {step}", encoding="utf-8")
    checkpoints.commit(folder, step, fingerprint)
    return folder


def test_there_is_none(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "nowhere", "ours") == Found(None, ())
    (tmp_path / "step-x").mkdir()
    (tmp_path / "step-7").write_text("no folder", encoding="utf-8")
    assert newest_valid(tmp_path, "ours") == Found(None, ())


def test_the_newest_counts_by_number_not_by_name(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        make(tmp_path, step)
    assert newest_valid(tmp_path, "ours") == Found(tmp_path / "step-100", ())
    assert checkpoints.newest(tmp_path) == tmp_path / "step-100"


@pytest.mark.parametrize("name", [*REQUIRED, "model.safetensors"])
def test_a_damaged_one_is_passed_over_and_named(tmp_path: Path, name: str) -> None:
    make(tmp_path, 5)
    for step in (10, 15, 20):
        make(tmp_path, step)
    (tmp_path / "step-20" / name).unlink()
    torn = tmp_path / "step-15" / name
    size = torn.stat().st_size
    torn.write_bytes(torn.read_bytes()[:-1])
    turned = tmp_path / "step-10" / name
    turned.write_bytes(b"X" + turned.read_bytes()[1:])
    assert newest_valid(tmp_path, "ours") == Found(
        tmp_path / "step-5",
        (
            f"step-20: {name} is missing",
            f"step-15: {name} has {size - 1} bytes instead of {size}",
            f"step-10: {name} has changed (its sha256 differs)",
        ),
    )


@pytest.mark.parametrize("name", REQUIRED)
def test_what_was_committed_incomplete_is_passed_over(tmp_path: Path, name: str) -> None:
    make(tmp_path, 5)
    make(tmp_path, 10, without=name)
    assert newest_valid(tmp_path, "ours") == Found(tmp_path / "step-5", (f"step-10: {name} is not part of it",))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"files": []}', b'{"files": {}, "fingerprint": "ours"}',
        b'{"files": [{}], "fingerprint": "ours"}', b'{"files": ["model.safetensors"], "fingerprint": "ours"}',
        b'{"files": [{"path": "a", "size": "1", "sha256": ""}], "fingerprint": "ours"}', b'{"files": [], "fingerprint": 1}',
    ],
)  # fmt: skip
def test_a_damaged_commit_file_is_no_fresh_start(tmp_path: Path, content: bytes) -> None:
    (make(tmp_path, 10) / COMMIT_FILE).write_bytes(content)
    with pytest.raises(PreconditionError, match=rf"step-10: {COMMIT_FILE} is damaged") as caught:
        newest_valid(tmp_path, "ours")
    assert "--force" in str(caught.value.hint)
    make(tmp_path, 5)
    assert newest_valid(tmp_path, "ours") == Found(tmp_path / "step-5", (f"step-10: {COMMIT_FILE} is damaged",))


def test_what_was_never_committed_does_not_count(tmp_path: Path) -> None:
    (make(tmp_path, 10) / COMMIT_FILE).unlink()
    make(tmp_path, 20).rename(tmp_path / f"{TEMPORARY_PREFIX}step-20")
    assert newest_valid(tmp_path, "ours") == Found(None, ("step-10: it was not committed",))


def test_none_is_whole(tmp_path: Path) -> None:
    for step in (5, 10):
        (make(tmp_path, step) / "optimizer.pt").unlink()
    with pytest.raises(PreconditionError, match=r"step-10: optimizer\.pt is missing; step-5: optimizer\.pt is missing"):
        newest_valid(tmp_path, "ours")


def test_another_configuration_is_refused_not_skipped(tmp_path: Path) -> None:
    make(tmp_path, 5)
    make(tmp_path, 10, fingerprint="theirs")
    with pytest.raises(PreconditionError, match=r"step-10 belongs to another configuration") as caught:
        newest_valid(tmp_path, "ours")
    assert "--force" in str(caught.value.hint)


def test_the_commit_names_every_file(tmp_path: Path) -> None:
    content = json.loads((make(tmp_path, 10) / COMMIT_FILE).read_text(encoding="utf-8"))
    assert {record["path"] for record in content["files"]} == {*REQUIRED, "model.safetensors"}
    assert content["step"] == 10
    assert content["fingerprint"] == "ours"


def test_pruning_keeps_the_newest_two(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100):
        make(tmp_path, step)
    for step in (12, 50):
        (make(tmp_path, step) / COMMIT_FILE).unlink()
    (tmp_path / f"{TEMPORARY_PREFIX}step-20").mkdir()
    (tmp_path / f"{TEMPORARY_PREFIX}step-20" / "model.safetensors").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "notes.txt").touch()
    prune(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"step-100", "step-15", "mine", "notes.txt"}
    prune(tmp_path, keep=1)
    assert {path.name for path in tmp_path.iterdir()} == {"step-100", "mine", "notes.txt"}


def test_pruning_after_a_damaged_one_was_passed_over(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20, 25):
        make(tmp_path, step)
    for step in (20, 25):
        (tmp_path / f"step-{step}" / "optimizer.pt").unlink()
    newest = newest_valid(tmp_path, "ours").path
    assert newest == tmp_path / "step-15"
    # By their number alone the damaged ones would be the two that are kept.
    prune(tmp_path, newest=newest)
    assert {path.name for path in tmp_path.iterdir()} == {"step-10", "step-15", "step-20", "step-25"}


def test_links_are_neither_followed_nor_counted(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    precious = make(elsewhere, 1)
    for step in (5, 10, 15):
        make(root, step)
    (root / "step-3").symlink_to(precious, target_is_directory=True)
    (root / "step-200").symlink_to(precious, target_is_directory=True)
    (root / f"{TEMPORARY_PREFIX}step-4").symlink_to(precious, target_is_directory=True)
    (root / "step-5" / "inner").symlink_to(precious, target_is_directory=True)
    assert newest_valid(root, "ours").path == root / "step-15"
    prune(root)
    assert checkpoints.problem(precious) is None
    kept = {path.name for path in root.iterdir()}
    assert {"step-10", "step-15", "step-3", "step-200"} == kept


def test_tensors_of_a_checkpoint_have_one_checksum(tmp_path: Path) -> None:
    """torch's own is left out while a checkpoint is written; it can be read as ever, and what is damaged is noticed."""
    state = {"moments": torch.arange(1000.0)}
    during = []

    def fill(folder: Path) -> None:
        during.append(get_crc32_options())
        for name in REQUIRED:
            torch.save(state, folder / name)

    assert get_crc32_options()
    checkpoints.write(tmp_path, 5, "ours", fill, 10_000)
    assert during == [False]
    assert get_crc32_options()
    optimizer = tmp_path / "step-5" / REQUIRED[0]
    assert torch.equal(torch.load(optimizer)["moments"], state["moments"])
    content = bytearray(optimizer.read_bytes())
    content[content.find(state["moments"][7].numpy().tobytes())] ^= 1
    optimizer.write_bytes(content)
    with pytest.raises(PreconditionError, match=f"{REQUIRED[0]} has changed"):
        newest_valid(tmp_path, "ours")
