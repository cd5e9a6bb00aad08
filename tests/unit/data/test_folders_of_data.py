"""Folders and archives of data as a whole: which files are read, as which split, and what is said."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from distillkit.console import Console
from distillkit.data.document import DocumentSet
from distillkit.data.sources import check_source, load_documents, source_fingerprint
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters


def load(path: object, **settings: Any) -> DocumentSet:
    return load_documents(Parameters(dataset_path=str(path), **settings), Console(quiet=True))


def words(documents: DocumentSet) -> dict[str, set[str]]:
    """The third word of the texts of each split, which says where they stood."""
    return {split: {document.text.split()[2] for document in found} for split, found in documents.splits.items()}


def text(word: str, number: int) -> str:
    return f"Text of {word} with the number {number}, which goes on for a while."


def jsonl(word: str) -> bytes:
    return "".join(json.dumps({"text": text(word, number)}) + "\n" for number in range(9)).encode()


def write(path: Path, word: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.table({"text": [text(word, number) for number in range(9)]}), path)
    else:
        path.write_bytes(jsonl(word))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A data set as a clone from the Hub has it."""
    folder = tmp_path / "clone"
    write(folder / "data" / "train-00000-of-00001.parquet", "TRAIN")
    write(folder / "data" / "test-00000-of-00001.parquet", "TEST")
    (folder / "README.md").write_text("Text of CARD\n\n" + "This is the data card. " * 50)
    (folder / ".gitattributes").write_text("*.parquet filter=lfs")
    return folder


def test_a_clone_from_the_hub(clone: Path) -> None:
    documents = load(clone)
    assert words(documents) == {"train": {"TRAIN"}, "test": {"TEST"}}
    assert documents.notes == [
        "no data, left out: README.md",
        "files by split: train: 1 file (data/train-00000-of-00001.parquet), test: 1 file (data/test-00000-of-00001.parquet)",
        "hidden files and folders left out: 1",
    ]
    assert set(source_fingerprint(Parameters(dataset_path=str(clone)))) == {
        "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet",
    }  # fmt: skip
    # A card that is named itself is what the user wants to be read.
    assert words(load(clone / "README.md")) == {"all": {"CARD"}}


def test_a_clone_whose_card_says_which_files_are_read(clone: Path) -> None:
    write(clone / "extra" / "a.jsonl", "EXTRA")
    (clone / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files: [{split: train, path: extra/*}, {split: test, path: data/test-*}]\n"
        "- config_name: small\n  data_files: data/train-*\n---\n# A set\n"
    )
    with pytest.raises(UsageError, match=r"2 configurations \(main, small\)") as caught:
        check_source(Parameters(dataset_path=str(clone)))
    assert caught.value.hint == f"choose one: --dataset-path {clone}:main"
    documents = load(f"{clone}:main")
    assert words(documents) == {"train": {"EXTRA"}, "test": {"TEST"}}
    assert "in no split that is used, left out: data/train-00000-of-00001.parquet" in documents.notes
    assert words(load(f"{clone}:small")) == {"all": {"TRAIN"}}
    # What is read depends on the card then.
    before = source_fingerprint(Parameters(dataset_path=f"{clone}:main"))
    assert set(before) == {"extra/a.jsonl", "data/test-00000-of-00001.parquet", "README.md"}
    with pytest.raises(UsageError, match="no configuration 'other'"):
        load(f"{clone}:other")
    with pytest.raises(UsageError, match="no such file or folder"):
        load(f"{clone}-2:main")


def test_a_pointer_of_git_lfs_in_a_clone_stops(clone: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    (clone / "data" / "train-00000-of-00001.parquet").write_bytes(pointer)
    with pytest.raises(UsageError, match=r"data/train-00000-of-00001\.parquet is a Git LFS pointer") as caught:
        load(clone)
    assert "git lfs pull" in (caught.value.hint or "")


def test_archives_are_folders(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/train.jsonl", jsonl("TRAIN"))
        archive.writestr("set/test.jsonl.gz", gzip.compress(jsonl("TEST")))
        archive.writestr("set/picture.png", b"\x89PNG")
        archive.writestr("__MACOSX/set/._train.jsonl", b"\0\1")
    documents = load(path)
    assert words(documents) == {"train": {"TRAIN"}, "test": {"TEST"}}
    assert documents.splits["train"][0].origin == "set.zip/set/train.jsonl:1"
    assert "files of other formats in archives left out (such as set/picture.png): 1" in documents.notes
    write(tmp_path / "validation.jsonl", "DEV")
    assert words(load(tmp_path)) == {"train": {"TRAIN"}, "test": {"TEST"}, "validation": {"DEV"}}


def test_cards_and_licences_in_archives_are_no_data(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/stories.txt", "TEXT it is.")
        for name in (
            "README.md",
            "set/LICENSE.txt",
            "set/requirements.txt",
            "set/dataset_infos.json",
            "set/metadata.csv",
        ):
            archive.writestr(name, "About the data.")
        archive.writestr("__MACOSX/set/._stories.txt", b"\0\1")
    for where in (path, tmp_path):
        documents = load(where)
        assert [document.text for document in documents.splits["all"]] == ["TEXT it is."]
        assert (
            "no data, left out: set.zip/README.md, set.zip/set/LICENSE.txt, set.zip/set/dataset_infos.json and 2 more"
            in (documents.notes)
        )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README.md", "About the data.")
    with pytest.raises(UsageError, match=r"holds no file that can be read; README\.md is no data"):
        load(path)


def test_the_only_file_of_an_archive_keeps_its_split(tmp_path: Path) -> None:
    for name, inner in (("a.zip", "train.jsonl"), ("b.zip", "set/test.jsonl")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(inner, jsonl(inner.upper()))
    assert words(load(tmp_path)) == {"train": {"TRAIN.JSONL"}, "test": {"SET/TEST.JSONL"}}


def test_an_archive_of_other_things_beside_texts_is_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("a.png", b"\x89PNG")
    with pytest.raises(UsageError, match="archives without a file that can be read left out: 1"):
        load(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(jsonl("TEXT"))
    documents = load(tmp_path)
    assert words(documents) == {"all": {"TEXT"}}
    assert "archives without a file that can be read left out: 1" in documents.notes


def test_the_only_file_of_an_archive_has_the_format_of_either_name(tmp_path: Path) -> None:
    for name, inner in (("a.jsonl.zip", "a"), ("a.zip", "a.jsonl"), ("a.jsonl.zip", "b.jsonl.gz")):
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(inner, gzip.compress(jsonl("TEXT")) if inner.endswith(".gz") else jsonl("TEXT"))
        (tmp_path / name).write_bytes(sink.getvalue())
        documents = load(tmp_path / name)
        assert words(documents) == {"all": {"TEXT"}}
        assert documents.splits["all"][0].origin == f"{name}:1"
        (tmp_path / name).unlink()
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("scan.pdf", b"%PDF-1.4")
    with pytest.raises(UsageError, match=r"holds no file that can be read \(such as scan\.pdf\)"):
        load(tmp_path / "b.zip")


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl.zst", "a.ndjson.gz", "a.jsonl.bz2", "a.jsonl.xz"])
def test_names_of_json_lines_packed_and_not(tmp_path: Path, name: str) -> None:
    import bz2
    import lzma

    content = jsonl("TEXT")
    pack = {
        "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress,
        "zst": lambda data: pyarrow.Codec("zstd").compress(data, asbytes=True),
    }  # fmt: skip
    suffix = name.rsplit(".", 1)[1]
    (tmp_path / name).write_bytes(pack[suffix](content) if suffix in pack else content)
    documents = load(tmp_path / name)
    assert words(documents) == {"all": {"TEXT"}}
    assert len(documents.splits["all"]) == 9


def test_a_packed_table_under_the_name_of_a_plain_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(jsonl("TEXT")))
    assert words(load(tmp_path / "a.jsonl")) == {"all": {"TEXT"}}
    write(tmp_path / "b.parquet", "TABLE")
    packed = gzip.compress((tmp_path / "b.parquet").read_bytes())
    (tmp_path / "b.parquet").write_bytes(packed)
    assert words(load(tmp_path / "b.parquet")) == {"all": {"TABLE"}}


def test_a_link_to_nowhere_says_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(UsageError, match="no such file or folder") as caught:
        load(tmp_path / "a.jsonl")
    assert f"it is a link to {tmp_path / 'gone.jsonl'}, which is not there" in (caught.value.hint or "")
