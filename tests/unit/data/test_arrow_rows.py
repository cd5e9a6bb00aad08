"""Arrow files: what `save_to_disk` writes, streams and files, Feather; packed ones; damaged ones."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from datasets import Dataset, DatasetDict, Features, Value
from pyarrow import feather, ipc

from distillkit.console import Console
from distillkit.data.document import DocumentSet
from distillkit.data.sources import load_documents, source_fingerprint
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters

TEXTS = [f"The text number {number} says a few words about itself, äöü 漢字." for number in range(1500)]


def load(path: Path, **settings: Any) -> DocumentSet:
    return load_documents(Parameters(dataset_path=str(path), **settings), Console(quiet=True))


def texts(path: Path, split: str = "all", **settings: Any) -> list[str]:
    return [document.text for document in load(path, **settings).splits[split]]


def table(kind: Any = None) -> pyarrow.Table:
    column = pyarrow.array(TEXTS) if kind is None else pyarrow.array(TEXTS).cast(kind)
    return pyarrow.table({"id": pyarrow.array(range(len(TEXTS))), "text": column})


def written(content: pyarrow.Table, make: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    with make(sink, content.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(content, max_chunksize=700)
    return sink.getvalue()


@pytest.mark.parametrize(
    "kind", [None, pyarrow.large_string(), pyarrow.string_view(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())]
)
@pytest.mark.parametrize("make", [ipc.new_file, ipc.new_stream])
def test_streams_and_files_of_every_kind_of_string(tmp_path: Path, make: Any, kind: Any) -> None:
    content = written(table(kind), make)
    (tmp_path / "a.arrow").write_bytes(content)
    documents = load(tmp_path / "a.arrow").splits["all"]
    assert [document.text for document in documents] == TEXTS
    assert documents[1400].origin == "a.arrow:1401"
    # Packed, where neither can be read from its end.
    (tmp_path / "b.arrow.gz").write_bytes(gzip.compress(content))
    assert texts(tmp_path / "b.arrow.gz") == TEXTS


def test_feather_files_with_and_without_compression(tmp_path: Path) -> None:
    for compression in ("zstd", "lz4", "uncompressed"):
        feather.write_feather(table(), str(tmp_path / "a.feather"), compression=compression)
        assert texts(tmp_path / "a.feather") == TEXTS
    (tmp_path / "b.feather").write_bytes(b"FEA1" + bytes(60))
    with pytest.raises(UsageError, match="Feather version 1 is not read"):
        load(tmp_path / "b.feather")


def test_folders_of_save_to_disk(tmp_path: Path) -> None:
    whole = Dataset.from_dict({"id": range(len(TEXTS)), "text": TEXTS})
    whole.save_to_disk(str(tmp_path / "saved"), num_shards=3)
    assert texts(tmp_path / "saved") == TEXTS
    assert set(source_fingerprint(Parameters(dataset_path=str(tmp_path / "saved")))) == {
        f"data-0000{number}-of-00003.arrow" for number in range(3)
    }
    # What `map` keeps there is no part of the set.
    (tmp_path / "saved" / "cache-0123456789abcdef.arrow").write_bytes(written(table(), ipc.new_stream))
    documents = load(tmp_path / "saved")
    assert len(documents.splits["all"]) == len(TEXTS)
    assert "files that `datasets` keeps for itself left out: 1" in documents.notes
    halves = DatasetDict({"train": whole.select(range(1000)), "test": whole.select(range(1000, 1500))})
    halves.save_to_disk(str(tmp_path / "dict"))
    documents = load(tmp_path / "dict")
    assert {split: len(found) for split, found in documents.splits.items()} == {"train": 1000, "test": 500}
    assert {document.text for document in documents.splits["test"]} == set(TEXTS[1000:])


def test_the_cache_of_load_dataset(tmp_path: Path) -> None:
    """name-train.arrow, name-test.arrow and what `map` left there, beside dataset_info.json."""
    (tmp_path / "dataset_info.json").write_text("{}")
    for split, content in (("train", table().slice(0, 1000)), ("test", table().slice(1000))):
        (tmp_path / f"json-{split}.arrow").write_bytes(written(content, ipc.new_stream))
    (tmp_path / "cache-0123456789abcdef.arrow").write_bytes(written(table(), ipc.new_stream))
    assert {split: len(found) for split, found in load(tmp_path).splits.items()} == {"train": 1000, "test": 500}


def test_rows_without_text_follow_the_policy_of_all_formats(tmp_path: Path) -> None:
    Dataset.from_dict(
        {"text": [*TEXTS[:300], None]}, features=Features({"text": Value("string")})
    ).save_to_disk(str(tmp_path / "saved"))  # fmt: skip
    documents = load(tmp_path / "saved")
    assert len(documents.splits["all"]) == 300
    assert "row 301, column 'text': null" in documents.notes[-1]
    with pytest.raises(UsageError, match="row 301, column 'text': null instead of text"):
        load(tmp_path / "saved", bad_rows="stop")


def test_another_column_and_no_column(tmp_path: Path) -> None:
    content = pyarrow.table({"title": [f"Title {n}" for n in range(30)], "picture": [b"\xff"] * 30})
    (tmp_path / "a.arrow").write_bytes(written(content, ipc.new_stream))
    assert texts(tmp_path / "a.arrow", text_column="title")[3] == "Title 3"
    with pytest.raises(UsageError, match=r"^a\.arrow: no column"):
        load(tmp_path / "a.arrow", text_column="body")


@pytest.mark.parametrize("make", [ipc.new_file, ipc.new_stream])
def test_cut_off_and_empty_files_are_refused(tmp_path: Path, make: Any) -> None:
    content = written(table(), make)
    for size in (0, 3, 100, len(content) // 2, len(content) - 40):
        (tmp_path / "a.arrow").write_bytes(content[:size])
        with pytest.raises(UsageError, match=r"^a\.arrow: not a sound Arrow file \("):
            load(tmp_path / "a.arrow")
    (tmp_path / "a.arrow").write_bytes(written(table().slice(0, 0), make))
    with pytest.raises(UsageError):
        load(tmp_path / "a.arrow")


def test_a_stream_that_ends_between_batches_is_told(tmp_path: Path) -> None:
    content = written(table(), ipc.new_stream)
    (tmp_path / "a.arrow").write_bytes(content)
    assert load(tmp_path / "a.arrow").notes == []
    (tmp_path / "a.arrow").write_bytes(content[:-8])
    assert load(tmp_path / "a.arrow").notes == ["a.arrow: ends without the mark of an end, so it may be cut off"]
