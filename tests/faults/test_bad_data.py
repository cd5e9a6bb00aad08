"""Data that cannot be used: exit 2, naming file, line and byte, or row and column."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from distillkit.console import Console
from distillkit.data.sources import check_source, load_documents, source_fingerprint
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters


def refusal(path: Path | str, **settings: object) -> UsageError:
    """The error that loading `path` raises."""
    with pytest.raises(UsageError) as caught:
        load_documents(Parameters(dataset_path=str(path), **settings), Console(quiet=True))  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "no text in it"),
        ("a.txt", b" \n\r\n\t\n", "no text in it"),
        ("a.txt", b"\xef\xbb\xbf", "no text in it"),
        ("a.jsonl", b'{"text": ""}\n', "no text in it (blank rows left out: 1)"),
        ("a.csv", b"text\n", "no text in it"),
        ("a.csv", b"", "no text in it"),
        ("a.json", b"[]", "no text in it"),
        ("a.txt", b"good\nline\xe9 two\n", "a.txt: not valid UTF-8 at line 2, byte 9"),
        ("a.txt", b"x" * 3_000_000 + b"\n\xff", "not valid UTF-8 at line 2, byte 3,000,001"),
        ("a.txt", b"cut off \xe2\x82", "not valid UTF-8 at line 1, byte 8"),
        ("a.txt", "ü\nNUL \0 here".encode(), "a.txt: NUL character at line 2, byte 7"),
        ("a.txt", "no mark".encode("utf-16-le"), "NUL character at line 1, byte 1"),
        ("a.txt", "mark\n".encode("utf-16") + b"\x00\xd8", "not valid UTF-16-LE at line 2, byte 12"),
        ("a.txt", "text".encode("utf-32")[:-2], "not valid UTF-32-LE at line 1, byte 16"),
        ("a.txt.gz", b"not gzip", "a.txt.gz: not a gzip file"),
        ("a.txt.gz", gzip.compress(b"text " * 1000, mtime=0)[:-20], "a.txt.gz: damaged gzip file"),
        ("a.parquet", b"not parquet", "a.parquet: not a sound Parquet file"),
        ("a.parquet", b"PAR1" + b"\0" * 50 + b"PAR1", "a.parquet: not a sound Parquet file"),
        ("a.json", b'[{"text": "a"},\n {"text": ]', "a.json, line 2, character 11: not valid JSON"),
        ("a.json", b'"a string alone"', "a str instead of a list of texts"),
        (
            "a.json",
            b'{"a": [], "b": []}',
            "several lists, and it is not clear which one holds the texts; columns: a, b",
        ),
        ("a.json", b"[" * 100_000, "JSON that cannot be read"),
    ],
)
def test_unusable_files_are_refused_with_their_place(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert words in refusal(path).message


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{broken", "a.jsonl, row 2 (line 3): not valid JSON"),
        ('{"text": null}', "a.jsonl, row 2 (line 3), column 'text': null instead of text"),
        ('{"text": 42}', "a.jsonl, row 2 (line 3), column 'text': the number 42 instead of text"),
        ('{"text": ["a"]}', "a.jsonl, row 2 (line 3), column 'text': a list instead of text"),
        ('{"texts": "a"}', "a.jsonl, row 2 (line 3): no column 'text'; columns: texts"),
        ("17", "a.jsonl, row 2 (line 3): the number 17 instead of text"),
        ('{"text": "\\ud800"}', "a.jsonl, row 2 (line 3), column 'text': half a surrogate pair"),
        ('{"text": "a\\u0000b"}', "a.jsonl, row 2 (line 3), column 'text': NUL character"),
        ("[" * 100_000, "a.jsonl, row 2 (line 3): JSON that cannot be read"),
        ("9" * 10_000, "a.jsonl, row 2 (line 3): JSON that cannot be read"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_bad_rows_of_json_lines(tmp_path: Path, row: str, words: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text('{"text": "good"}\n\n' + row + "\n")
    words = words.replace("a.jsonl", path.name)
    assert refusal(path, bad_rows="stop").message.startswith(words)
    assert words.removesuffix(" instead of text") in refusal(path).message


def test_a_bad_first_row_names_the_row_too(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for row in ('{"text": null}', '{"body": null}'):
        path.write_text(row + "\n")
        assert "row 1 (line 1), column" in refusal(path).message
    path.write_text('{"id": 1, "body": 2}\n')
    assert (
        "column 'body' does not hold text but numbers; columns: id: numbers"
        in refusal(path, text_column="body").message
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1,good\n2\n", "a.csv, row 2 (line 3): 1 cells, but the header names 2 columns"),
        ("1,good\n2,a,b\n", "a.csv, row 2 (line 3): 3 cells, but the header names 2 columns"),
        ("1,good\n2,\n", "a.csv, row 2 (line 3), column 'text': empty instead of text"),
        ("1,good\n2,42\n", "a.csv, row 2 (line 3), column 'text': the number 42 instead of text"),
        ("1,42.5\n", "a.csv, row 1 (line 2), column 'text': the number 42.5 instead of text"),
        ('1,"two\nlines"\n2,"open\n', "a.csv, row 2 (line 4): not valid CSV"),
        ('1,"a" b\n', "a.csv, row 1 (line 2): not valid CSV"),
    ],
)
def test_bad_rows_of_csv(tmp_path: Path, rows: str, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text\n" + rows)
    error = refusal(path, bad_rows="stop")
    assert words in error.message
    assert error.hint
    place = words.split(":")[0].removesuffix(" instead of text")
    assert place in refusal(path).message


def test_missing_and_ambiguous_columns_list_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"title": "a", "body": "b", "n": 1}))
    error = refusal(path)
    assert (
        "it is not clear which column holds the text; columns: title: single words; body: single words; n: numbers"
        in error.message
    )
    assert "--text-column" in (error.hint or "")
    error = refusal(path, text_column="bodi")
    assert "no column 'bodi'; columns: title, body, n" in error.message
    assert error.hint == "did you mean --text-column body?"
    table = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"a": [1], "b": [2.0]}), table)
    assert "no column holds text; columns: a: numbers; b: numbers" in refusal(table).message
    assert "column 'a' does not hold text" in refusal(table, text_column="a").message


def test_paths_that_are_not_there_or_not_files(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("text")
    error = refusal(tmp_path / "text.txt")
    assert "no such file or folder" in error.message
    assert str(tmp_path / "texts.txt") in (error.hint or "")
    assert "does not exist either" in (refusal(tmp_path / "none" / "a.txt").hint or "")
    assert "known: .txt" in (refusal(__file__).hint or "")
    assert "b.txt" in refusal("a\0b.txt").message
    assert "x.txt" in refusal("x" * 5000 + ".txt").message
    os.mkfifo(tmp_path / "pipe.txt")
    assert "not an ordinary file" in refusal(tmp_path / "pipe.txt").message
    for check in (check_source, source_fingerprint):
        with pytest.raises(UsageError, match="no such file"):
            check(Parameters(dataset="./absent.txt"))


def test_folders_without_readable_files(tmp_path: Path) -> None:
    assert "holds no file that can be read" in refusal(tmp_path).message
    (tmp_path / "a.bin").write_bytes(b"x")
    (tmp_path / ".b.txt").write_text("hidden")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    message = refusal(tmp_path).message
    for words in ("hidden files and folders left out: 1", "such as a.bin", "nowhere not followed: 1"):
        assert words in message


def test_one_bad_file_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "bad.txt").write_bytes(b"\xff\xfe\xfa")
    assert "sub/bad.txt: not valid UTF-16-LE at line 1, byte 2" in refusal(tmp_path).message
