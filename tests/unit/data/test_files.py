"""Local files of every format -> documents."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from distillkit.console import Console
from distillkit.data.document import Document
from distillkit.data.formats import file_kind
from distillkit.data.notes import ReadingNotes
from distillkit.data.sampling import bounded_sample
from distillkit.data.sources import check_source, load_documents, source_fingerprint
from distillkit.settings.parameters import Parameters

TEXTS = ["First text, “quoted”.", "Second\nof two lines", "Dritter, äöü 漢字"]


def load(path: Path, **settings: object) -> tuple[list[str], list[str], list[str]]:
    """Texts, origins and notes of a path."""
    documents = load_documents(Parameters(dataset_path=str(path), **settings), Console(quiet=True))  # type: ignore[arg-type]
    found = documents.splits["all"]
    return [document.text for document in found], [document.origin for document in found], documents.notes


def write_table(path: Path, kind: str) -> None:
    rows = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    elif kind == "strings.jsonl":
        path.write_text("".join(json.dumps(text) + "\n\n" for text in TEXTS), encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif kind == "strings.json":
        path.write_text(json.dumps(TEXTS), encoding="utf-8")
    elif kind == "object.json":
        path.write_text(json.dumps({"version": 1, "data": rows}), encoding="utf-8")
    elif kind == "lines.json":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            delimiter = {"csv": ",", "tsv": "\t", "semicolon.csv": ";"}[kind]
            writer = csv.DictWriter(stream, ["id", "text"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)


KINDS = [
    "jsonl", "strings.jsonl", "json", "strings.json", "object.json", "lines.json", "csv", "tsv", "semicolon.csv",
    "parquet",
]  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("kind", KINDS)
def test_tables_give_a_document_for_each_row(tmp_path: Path, kind: str, packed: bool) -> None:
    path = tmp_path / f"data.{kind}"
    write_table(path, kind)
    if packed:
        plain, path = path, tmp_path / f"data.{kind}.gz"
        path.write_bytes(gzip.compress(plain.read_bytes()))
    texts, origins, _ = load(path)
    assert texts == TEXTS
    assert all(origin.startswith(f"{path.name}:") for origin in origins)
    assert len(set(origins)) == len(TEXTS)


def test_origins_of_rows_are_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('\ntext\n"one\ntwo"\nthree words\n')
    assert load(path)[:2] == (["one\ntwo", "three words"], ["data.csv:3", "data.csv:5"])
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": "b"}\n')
    assert load(path)[1] == ["data.jsonl:1", "data.jsonl:3"]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16"], ids=["utf-8", "byte-order mark", "UTF-16 with mark"]
)
def test_encodings_and_line_ends_give_the_same_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes("Grüße,\r\n“Leser”!\r\n\r\nEnd\u2028here 😀.\r\n".encode(encoding))
    texts, origins, notes = load(path)
    assert texts == ["Grüße,\n“Leser”!\n\nEnd\u2028here 😀."]
    assert origins == ["book.txt:1"]
    assert "book.txt: line ends changed to LF" in notes
    assert len(notes) == (1 if encoding == "utf-8" else 2)


def test_big_endian_utf16(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xfe\xff" + "Привет\n".encode("utf-16-be"))
    assert load(path)[0] == ["Привет"]


def test_characters_across_block_borders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillkit.data.text_decoding.BLOCK_BYTES", 3)
    path = tmp_path / "book.txt"
    path.write_bytes("日本語 ünd 😀\r\nline\r\n".encode())
    assert load(path)[0] == ["日本語 ünd 😀\nline"]


def test_a_book_becomes_many_documents_and_only_the_last_ends_the_text(tmp_path: Path) -> None:
    path = tmp_path / "book.md"
    path.write_text("\n\n".join(f"Paragraph {number}. " + "word " * 100 for number in range(100)))
    documents = load_documents(Parameters(dataset_path=str(path)), Console(quiet=True)).splits["all"]
    assert 5 < len(documents) < 20
    assert [document.ends_text for document in documents] == [False] * (len(documents) - 1) + [True]
    assert documents[1].text.startswith("Paragraph ")
    assert documents[1].origin == f"book.md:{int(documents[1].text.split()[1][:-1]) * 2 + 1}"
    longer = load_documents(Parameters(dataset_path=str(path), max_length=4096), Console(quiet=True)).splits["all"]
    assert len(longer) < len(documents)


def test_a_long_row_is_cut_and_a_long_line_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "word " * 4000}))
    assert load(path)[1] == ["rows.jsonl:1", "rows.jsonl:1#2", "rows.jsonl:1#3"]
    line = tmp_path / "line.txt"
    line.write_text("word " * 400_000)
    assert sum(len(text.split()) for text in load(line)[0]) == 400_000


def test_a_large_cell_of_a_csv_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text\n" + "word " * 100_000 + "\n")
    before = csv.field_size_limit()
    assert sum(len(text.split()) for text in load(path)[0]) == 100_000
    assert csv.field_size_limit() == before


def test_the_only_text_column_is_found_and_another_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"id": 1, "body": "the body"}))
    assert load(path)[0] == ["the body"]
    path.write_text(json.dumps({"title": "the title", "text": "the text"}))
    assert load(path)[0] == ["the text"]
    assert load(path, text_column="title")[0] == ["the title"]
    table = tmp_path / "data.csv"
    table.write_text("id,body\n1,the body\n")
    assert load(table)[0] == ["the body"]


def test_blank_rows_are_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": ""}\n{"text": "a text"}\n{"text": " \\n"}\n')
    texts, _, notes = load(path)
    assert texts == ["a text"]
    assert notes == ["blank rows left out: 2"]


def test_folders_are_read_in_order_without_hidden_unknown_and_outside_files(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("outside")
    folder = tmp_path / "texts"
    (folder / "b").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "b" / "x.txt").write_text("bx")
    (folder / "a.md").write_text("a")
    (folder / "c.txt").write_text("c")
    (folder / ".hidden.txt").write_text("hidden")
    (folder / ".git" / "y.txt").write_text("hidden")
    (folder / "z.bin").write_bytes(b"\0")
    (folder / "link.txt").symlink_to(outside)
    (folder / "again.txt").symlink_to(folder / "c.txt")
    (folder / "loop").symlink_to(folder)
    texts, origins, notes = load(folder)
    assert texts == ["a", "bx", "c"]
    assert origins == ["a.md:1", "b/x.txt:1", "c.txt:1"]
    assert notes == [
        "hidden files and folders left out: 2",
        "links to folders not followed: 1",
        "links that lead out of the folder or nowhere not followed: 1",
        "files of other formats left out (such as z.bin): 1",
    ]


def test_files_named_after_splits_are_official_splits(tmp_path: Path) -> None:
    for name in ("train.txt", "valid.txt", "test.txt"):
        (tmp_path / name).write_text(name)
    documents = load_documents(Parameters(dataset_path=str(tmp_path)), Console(quiet=True))
    assert {split: [d.text for d in found] for split, found in documents.splits.items()} == {
        "train": ["train.txt"], "validation": ["valid.txt"], "test": ["test.txt"],
    }  # fmt: skip
    (tmp_path / "notes.txt").write_text("something else")
    assert set(load_documents(Parameters(dataset_path=str(tmp_path)), Console(quiet=True)).splits) == {"all"}


def test_fingerprints_tell_what_changed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    config = Parameters(dataset_path=str(tmp_path))
    stored = load_documents(config, Console(quiet=True)).fingerprint
    assert source_fingerprint(config) == stored
    assert set(stored) == {"a.txt", "b.txt"}
    (tmp_path / "a.txt").write_text("A")
    (tmp_path / "b.txt").rename(tmp_path / "c.txt")
    changed = source_fingerprint(config)
    assert changed["a.txt"] != stored["a.txt"]
    assert set(changed) == {"a.txt", "c.txt"}
    hub = Parameters(dataset="owner/name:config@v1")
    assert source_fingerprint(hub) == {
        "id": "owner/name",
        "config": "config",
        "column": "found by itself",
        "revision": "v1",
    }
    assert source_fingerprint(Parameters(dataset="owner/name:config"))["revision"] == "main"


def test_dataset_may_be_a_path_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    for name in ("corpus", "./corpus", "corpus/a.txt", str(tmp_path)):
        assert load_documents(Parameters(dataset=name), Console(quiet=True)).splits["all"][0].text == "text"
        check_source(Parameters(dataset=name))


def test_kinds_are_told_by_the_name() -> None:
    names = {"a.TXT": "txt", "a.csv.gz": "csv", "a.gz": None, "a": None, "a.tar.gz": None, ".txt": None}
    assert {name: file_kind(Path(name)) for name in names} == names


def test_far_too_much_text_is_sampled_evenly_and_repeatably() -> None:
    documents = [Document("x" * 744, f"d:{number}") for number in range(4000)]

    def sample(seed: int) -> tuple[list[int], list[str]]:
        notes = ReadingNotes()
        kept = bounded_sample(iter(documents), 1_000_000, seed, "all", notes)
        return [int(document.origin[2:]) for document in kept], notes.lines()

    kept, notes = sample(1)
    assert 400 < len(kept) <= 1000
    assert kept == sorted(kept)
    assert 0.4 < sum(number < 2000 for number in kept) / len(kept) < 0.6
    assert notes[0].startswith("more text than is needed")
    assert sample(1) == (kept, notes)
    assert sample(2)[0] != kept
    untouched = ReadingNotes()
    assert bounded_sample(documents, 1 << 30, 1, "all", untouched) == documents
    assert untouched.lines() == []
