"""What is not read is recognised: what it is, and what to do."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from distillkit.console import Console
from distillkit.data.recognise import by_content, by_name
from distillkit.data.sources import check_source, load_documents
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234567\n"


def zip_of(*names: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return sink.getvalue()


def tar_of(*names: str, mode: str = "w") -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as archive:  # type: ignore[call-overload]
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.xlsx", "a spreadsheet"), ("a.DOCX", "a word processor's document"), ("a.pdf", "a PDF file"),
        ("a.epub", "an e-book"), ("a.html", "a web page"), ("a.xml.gz", "an XML file"), ("a.db", "an SQLite database"),
        ("a.sqlite", "an SQLite database"), ("a.pkl", "a pickle, which can run code when it is read"),
        ("a.tfrecord-00000-of-00002", "a TFRecord file"), ("a.tfrecord.gz", "a TFRecord file"),
        ("shard-000000.tar", "a tar archive"), ("a.tar.gz", "a tar archive"), ("a.tgz", "a tar archive"),
        ("a.tar.zst", "a tar archive"), ("a.ipynb", "a Jupyter notebook"), ("a.7z", "an archive"),
    ],
)  # fmt: skip
def test_names_tell(tmp_path: Path, name: str, what: str) -> None:
    known = by_name(name)
    assert known is not None
    assert known.what == what
    path = tmp_path / name
    path.write_bytes(b"something")
    with pytest.raises(UsageError) as caught:
        check_source(Parameters(dataset_path=str(path)))
    assert caught.value.message == f"{path} is {what}"
    assert caught.value.hint
    assert "{" not in caught.value.hint


def test_names_of_formats_that_are_read_tell_nothing() -> None:
    for name in ("a.txt", "a.jsonl.gz", "a.parquet", "a", "tar", "a.unknown"):
        assert by_name(name) is None


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.jsonl", LFS, "a Git LFS pointer, not the data themselves"),
        ("a.parquet", LFS, "a Git LFS pointer, not the data themselves"),
        ("a.jsonl.gz", LFS, "a Git LFS pointer, not the data themselves"),
        ("a.txt", b"%PDF-1.7\nstream", "a PDF file"),
        ("a.txt", tar_of("a.txt"), "a tar archive"),
        ("a.txt", zip_of("[Content_Types].xml", "word/document.xml"), "a word processor's document"),
        ("a.csv", zip_of("[Content_Types].xml", "xl/workbook.xml"), "a spreadsheet"),
        ("a.zip", zip_of("mimetype", "content.opf"), "an e-book"),
        ("a.txt", pickle.dumps({"text": ["a"]}), "a pickle, which can run code when it is read"),
        ("a.parquet", b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page, not PARQUET"),
        ("a.csv", b"<!-- saved from -->\n<html>", "a web page, not CSV"),
    ],
)
def test_contents_tell_whatever_the_name_says(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        check_source(Parameters(dataset_path=str(path)))
    assert caught.value.message == f"{path} is {what}"
    # In a folder it is not passed over: the other files would not be the whole set.
    (tmp_path / "b.txt").write_text("Another text.")
    with pytest.raises(UsageError) as caught:
        check_source(Parameters(dataset_path=str(tmp_path)))
    assert caught.value.message == f"{name} is {what}"


def test_formats_that_are_read_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    parquet.write_table(pyarrow.table({"text": ["a", "b"]}), path)
    with pytest.raises(UsageError, match="is a Parquet file") as caught:
        check_source(Parameters(dataset_path=str(path)))
    assert caught.value.hint == "rename it to .parquet"
    path.rename(tmp_path / "corpus")
    with pytest.raises(UsageError, match="is a Parquet file"):
        check_source(Parameters(dataset_path=str(tmp_path / "corpus")))
    connection = sqlite3.connect(tmp_path / "b.csv")
    connection.execute("create table texts (text text)")
    connection.commit()
    connection.close()
    with pytest.raises(UsageError, match="is an SQLite database"):
        check_source(Parameters(dataset_path=str(tmp_path / "b.csv")))


@pytest.mark.parametrize(
    "text",
    [
        "PAR1 is how the course began.", "ARROW1", "FEA1", "ORC armies", "Obj", "version https://git-lfs is a pointer", "<html> in a text",
        "<!doctype html>", "BZh is a word", "PK", "Rar! said he", "{\\tf", "7z", "€uro", "%PDF", "ustar " * 90,
    ],
)  # fmt: skip
def test_texts_that_begin_like_another_format_are_texts(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    assert by_content(path, "a.txt", "txt") is None
    documents = load_documents(Parameters(dataset_path=str(path)), Console(quiet=True))
    assert [document.text for document in documents.splits["all"]] == [text.strip()]


def test_a_folder_of_other_formats_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "book.epub").write_bytes(b"x")
    (tmp_path / "scan.pdf").write_bytes(b"x")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "A text of some words, which is long enough."}))
    notes = load_documents(Parameters(dataset_path=str(tmp_path)), Console(quiet=True)).notes
    assert f"book.epub is an e-book: convert it: pandoc -t plain {tmp_path / 'book.epub'} -o texts.txt" in notes
    assert "files of other formats left out (such as book.epub): 2" in notes
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(UsageError, match="holds no file that can be read") as caught:
        check_source(Parameters(dataset_path=str(tmp_path)))
    assert "pandoc" in (caught.value.hint or "")


def test_packed_names_without_a_format_say_how_to_name_them(tmp_path: Path) -> None:
    (tmp_path / "corpus.gz").write_bytes(gzip.compress(b"A text."))
    with pytest.raises(UsageError, match="unknown format") as caught:
        check_source(Parameters(dataset_path=str(tmp_path / "corpus.gz")))
    assert "put the format in front of .gz" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "what", "todo"),
    [
        ("table.xls", "a spreadsheet", "save the sheet as .csv"),
        ("letter.doc", "a document of an office program", "save it as plain text"),
        ("old", "a file of an old office program", "a table as .csv"),
    ],
)
def test_the_name_tells_which_old_office_file_it_is(tmp_path: Path, name: str, what: str, todo: str) -> None:
    (tmp_path / name).write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600))
    with pytest.raises(UsageError, match=what) as caught:
        check_source(Parameters(dataset_path=str(tmp_path / name)))
    assert todo in (caught.value.hint or "")


def test_the_command_of_a_hint_takes_paths_with_blanks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my texts").mkdir()
    (tmp_path / "my texts" / "a book.pdf").write_bytes(b"%PDF-1.7")
    with pytest.raises(UsageError, match="a PDF file") as caught:
        check_source(Parameters(dataset_path=str(tmp_path / "my texts" / "a book.pdf")))
    assert caught.value.hint == "extract its text: pdftotext 'my texts/a book.pdf' texts.txt"
    with pytest.raises(UsageError, match="no file that can be read") as caught:
        check_source(Parameters(dataset_path=str(tmp_path / "my texts")))
    assert (caught.value.hint or "").endswith("pdftotext 'my texts/a book.pdf' texts.txt")
    assert "pdftotext" not in caught.value.message  # Once is enough.
