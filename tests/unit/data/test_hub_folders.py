"""The Hub's cache as a folder of data, with links and with copies that have lost them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distillkit.console import Console
from distillkit.data.document import DocumentSet
from distillkit.data.sources import load_documents
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters


def load(path: Path) -> DocumentSet:
    return load_documents(Parameters(dataset_path=str(path)), Console(quiet=True))


def rows(word: str) -> bytes:
    return "".join(
        json.dumps({"text": f"A text of {word}, number {n}, of some length."}) + "\n" for n in range(9)
    ).encode()


@pytest.fixture(params=["links", "written links"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The cache's folder of a repository with one snapshot."""
    folder = tmp_path / "datasets--o--n"
    snapshot = folder / "snapshots" / "abc123"
    (folder / "blobs").mkdir(parents=True)
    (snapshot / "data").mkdir(parents=True)
    for name, blob in (("data/train.jsonl", "b1"), ("data/test.jsonl", "b2"), ("README.md", "b3")):
        (folder / "blobs" / blob).write_bytes(rows(name))
        target = "../" * (2 + name.count("/")) + f"blobs/{blob}"
        if request.param == "links":
            (snapshot / name).symlink_to(target)
        else:
            (snapshot / name).write_text(target)
    return folder


def test_links_to_blobs_are_followed(repository: Path) -> None:
    documents = load(repository / "snapshots" / "abc123")
    assert {split: len(found) for split, found in documents.splits.items()} == {"train": 9, "test": 9}
    assert documents.splits["test"][0].text == "A text of data/test.jsonl, number 0, of some length."
    assert len(load(repository / "snapshots" / "abc123" / "data").splits["train"]) == 9


def test_a_link_may_be_named_itself(repository: Path) -> None:
    documents = load(repository / "snapshots" / "abc123" / "data" / "test.jsonl")
    assert [document.origin for document in documents.splits["all"]][:2] == ["test.jsonl:1", "test.jsonl:2"]


def test_the_folder_of_the_repository_stands_for_its_snapshot(repository: Path) -> None:
    documents = load(repository)
    assert set(documents.splits) == {"train", "test"}
    assert any("its snapshot abc123 is read" in note for note in documents.notes)
    (repository / "snapshots" / "def456").mkdir()
    with pytest.raises(UsageError, match="with 2 snapshots") as caught:
        load(repository)
    assert f"{repository}/snapshots/abc123" in (caught.value.hint or "")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    assert set(load(repository).splits) == {"train", "test"}


def test_other_links_that_lead_out_are_not_followed(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_bytes(rows("a secret"))
    (repository / "snapshots" / "abc123" / "more.jsonl").symlink_to(tmp_path / "secret.jsonl")
    documents = load(repository / "snapshots" / "abc123")
    assert "links that lead out of the folder or nowhere not followed: 1" in documents.notes
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(UsageError, match="holds no file that can be read") as caught:
        load(tmp_path / "only")
    assert "cp -rL" in (caught.value.hint or "")


def test_a_written_link_to_elsewhere_is_refused(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_bytes(rows("a secret"))
    for target in ("../../../secret.jsonl", "../../blobs/absent", "../../../../etc/passwd"):
        (repository / "snapshots" / "abc123" / "more.jsonl").write_text(target)
        with pytest.raises(UsageError, match="holds nothing but the path of another file"):
            load(repository / "snapshots" / "abc123")
