"""Parquet files -> rows: the column by type and by values, and which rows are bad."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from distillkit.console import Console
from distillkit.data.document import DocumentSet
from distillkit.data.sources import load_documents
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters

TEXTS = [f"A sentence of some words about the {word}." for word in ("harbour", "lantern", "wagon", "orchard")]
IDS = [f"doc-{number:04}" for number in range(4)]
TURNS = [[{"role": "user", "content": text}] for text in TEXTS]


def read(path: Path, columns: dict[str, Any], **settings: Any) -> DocumentSet:
    parquet.write_table(pyarrow.table(columns), path, row_group_size=100)
    return load_documents(Parameters(dataset_path=str(path), **settings), Console(quiet=True))


def texts(found: DocumentSet) -> list[str]:
    return [document.text for document in found.splits["all"]]


def refusal(path: Path, columns: dict[str, Any], **settings: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(path, columns, **settings)
    return caught.value


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array(TEXTS), pyarrow.array(TEXTS, pyarrow.large_string()), pyarrow.array(TEXTS, pyarrow.string_view()),
        pyarrow.array(TEXTS).dictionary_encode(),
    ],
    ids=["string", "large", "view", "dictionary"],
)  # fmt: skip
def test_strings_of_every_kind_are_read(tmp_path: Path, column: Any) -> None:
    beside = {
        "id": IDS, "n": [1, 2, 3, 4], "when": [datetime.datetime(2021, 1, day + 1) for day in range(4)],
        "picture": [{"bytes": b"\x89", "path": "a.png"}] * 4, "vector": [[0.5]] * 4, "none": pyarrow.nulls(4),
        "flag": [True] * 4, "raw": [b"\x00"] * 4, "price": pyarrow.array([1, 2, 3, 4], pyarrow.decimal128(5)),
    }  # fmt: skip
    for columns in (beside | {"essay": column}, {"essay": column} | beside):
        found = read(tmp_path / "a.parquet", columns)
        assert texts(found) == TEXTS
        assert found.reading["columns"] == {"a.parquet": {"column": "essay", "why": "the only one that is prose"}}
    assert texts(read(tmp_path / "a.parquet", beside | {"text": column, "essay": column})) == TEXTS


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"id": IDS, "messages": TURNS}, "no answer of the assistant"),
        ({"id": IDS, "messages": TURNS, "text": TEXTS}, "not clear what is to be read: messages (column messages); column text"),
        ({"id": IDS, "parts": [[{"n": 1, "body": text}] for text in TEXTS]}, "id: identifiers; parts: lists with texts in them"),
        ({"id": IDS, "doc": [{"body": text} for text in TEXTS]}, "id: identifiers; doc: objects with texts in them"),
        ({"id": IDS, "text": [[text] for text in TEXTS]}, "id: identifiers; text: lists with texts in them"),
        ({"title": TEXTS, "text": [text.encode() for text in TEXTS]}, "title: short texts; text: bytes"),
        ({"url": [f"https://a.org/{number}" for number in range(4)], "n": [1, 2, 3, 4]}, "url: addresses (URLs); n: numbers"),
        ({"a": TEXTS, "b": TEXTS}, "not clear which column holds the text; columns: a: prose; b: prose"),
        ({"translation": [{"en": text, "de": text} for text in TEXTS]}, "translation: objects with texts in them"),
        ({"question": TEXTS, "answers": [["yes", "no"]] * 4}, "question, answers: the sides of a conversation"),
    ],
)  # fmt: skip
def test_no_other_column_is_taken_instead(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    assert words in refusal(tmp_path / "a.parquet", columns).message


def test_a_number_called_text_gives_way_to_prose(tmp_path: Path) -> None:
    assert texts(read(tmp_path / "a.parquet", {"text": [1, 2, 3, 4], "body": TEXTS})) == TEXTS


def test_a_named_column_is_judged_by_its_type(tmp_path: Path) -> None:
    columns = {"id": IDS, "parts": [[text] for text in TEXTS], "body": TEXTS}
    assert texts(read(tmp_path / "a.parquet", columns, text_column="id")) == IDS
    error = refusal(tmp_path / "a.parquet", columns, text_column="parts")
    assert "column 'parts' does not hold text but lists with texts in them" in error.message
    assert "--text-column body" in (error.hint or "")


def test_rows_without_a_text_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    found = read(path, {"text": [*TEXTS * 30, None], "n": range(121)})
    assert texts(found) == TEXTS * 30
    assert found.notes == ["a.parquet: 1 bad row left out (a.parquet, row 121, column 'text': null)"]
    many = {"text": [*TEXTS * 30, None, None]}
    assert "2 of 122 rows hold no text (a.parquet, row 121, column 'text': null; " in refusal(path, many).message
    assert texts(read(path, many, bad_rows="skip-all")) == TEXTS * 30
    assert "row 121, column 'text': null instead of text" in refusal(path, many, bad_rows="stop").message
    nul = read(path, {"text": [*TEXTS * 30, "a\0b"]})
    assert nul.reading["bad_rows"]["a.parquet"]["first"] == [
        "a.parquet, row 121, column 'text': NUL character: not text"
    ]
    blank = read(path, {"text": [*TEXTS, "", " "]})
    assert (texts(blank), blank.notes) == (TEXTS, ["blank rows left out: 2"])


def test_one_text_whose_bytes_are_broken(tmp_path: Path) -> None:
    pieces = [text.encode() for text in TEXTS * 30] + [b"\xff\xfe"]
    column = pyarrow.array(pieces, pyarrow.binary()).view(pyarrow.string())
    found = read(tmp_path / "a.parquet", {"id": [f"doc-{number}" for number in range(121)], "body": column})
    assert texts(found) == TEXTS * 30
    assert found.reading["bad_rows"]["a.parquet"]["first"] == [
        "a.parquet, row 121, column 'body': bytes that are not UTF-8"
    ]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    arrays = [
        pyarrow.array(TEXTS),
        pyarrow.array(TEXTS),
        pyarrow.array([1] * len(TEXTS)),
        pyarrow.array([1] * len(TEXTS)),
    ]
    parquet.write_table(pyarrow.Table.from_arrays(arrays, names=["text", "text", "n", "n"]), path)
    for settings in ({}, {"text_column": "text"}):
        with pytest.raises(UsageError, match="2 columns are called 'text'"):
            load_documents(Parameters(dataset_path=str(path), **settings), Console(quiet=True))
    parquet.write_table(pyarrow.Table.from_arrays(arrays[1:], names=["text", "n", "n"]), path)
    assert texts(load_documents(Parameters(dataset_path=str(path)), Console(quiet=True))) == TEXTS
