"""JSON Lines and JSON in the shapes that people have -> rows; which rows are bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distillkit.console import Console
from distillkit.data.document import DocumentSet
from distillkit.data.sources import load_documents
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters

TEXTS = [f"A sentence of some words about the {word}." for word in ("harbour", "lantern", "wagon", "orchard")]
ROWS = [{"id": number, "body": text} for number, text in enumerate(TEXTS)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def read(path: Path, content: str, **settings: Any) -> DocumentSet:
    path.write_text(content, encoding="utf-8")
    return load_documents(Parameters(dataset_path=str(path), **settings), Console(quiet=True))


def texts(found: DocumentSet) -> list[str]:
    return [document.text for document in found.splits["all"]]


def refusal(path: Path, content: str, **settings: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(path, content, **settings)
    return caught.value


def by(*names: str, indices: list[str]) -> dict[str, dict[str, Any]]:
    return {name: {index: row[name] for index, row in zip(indices, ROWS, strict=True)} for name in names}


NUMBERS = ["0", "1", "2", "3"]
KEYS = ["a", "b", "c", "d"]
SHAPES: dict[str, Any] = {
    "records": ROWS,
    "strings": TEXTS,
    "columns": by("id", "body", indices=NUMBERS),
    "one column": by("body", indices=NUMBERS),
    "columns, named rows": by("id", "body", indices=KEYS),
    "index": dict(zip(NUMBERS, ROWS, strict=True)),
    "objects by key": dict(zip(KEYS, ROWS, strict=True)),
    "split": {"columns": ["id", "body"], "index": [0, 1, 2, 3], "data": [list(row.values()) for row in ROWS]},
    "table": {"schema": {"fields": [{"name": "id", "type": "integer"}], "pandas_version": "1.4.0"}, "data": ROWS},
    "values": [list(row.values()) for row in ROWS],
    "series": dict(zip(NUMBERS, TEXTS, strict=True)),
    "columns as lists": {"id": [0, 1, 2, 3], "body": TEXTS},
    "an object with one list": {"version": "1.0", "data": ROWS},
    "rows inside data": {"status": "ok", "data": {"rows": ROWS}},
    "an answer of the Hub": {"features": [{"name": "body"}], "rows": [{"row_idx": 0, "row": row} for row in ROWS]},
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["json", "jsonl", "ndjson"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_texts(tmp_path: Path, shape: str, indent: int | None, suffix: str) -> None:
    found = read(tmp_path / f"a.{suffix}", json.dumps(SHAPES[shape], indent=indent))
    assert texts(found) == TEXTS
    assert len({document.origin for document in found.splits["all"]}) == len(TEXTS)
    if shape not in ("strings", "series"):
        assert list(found.reading["columns"]) == [f"a.{suffix}"]


@pytest.mark.parametrize("suffix", ["json", "jsonl", "ndjson"])
@pytest.mark.parametrize(
    "content",
    [
        LINES, "\n\n" + LINES.replace("\n", "\r\n\r\n"), "\ufeff" + LINES, LINES.replace("\n", ""),
        "\n".join(json.dumps(row, indent=2) for row in ROWS), "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    ],
    ids=["lines", "blank lines", "byte-order mark", "without lines", "pretty objects", "a row on each line"],
)  # fmt: skip
def test_lines_and_values_one_after_another(tmp_path: Path, content: str, suffix: str) -> None:
    assert texts(read(tmp_path / f"a.{suffix}", content)) == TEXTS


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize(
    "record",
    [
        {"text": TEXTS[0]}, {"title": "A title", "body": TEXTS[0], "tags": ["sea", "ships"]},
        {"text": TEXTS[0], "parts": [{"text": "other"}]}, {"id": "x-1", "meta": {"a": 1}, "body": TEXTS[0]},
    ],
)  # fmt: skip
def test_one_record_is_one_text(tmp_path: Path, record: dict[str, Any], suffix: str) -> None:
    for content in (json.dumps(record), json.dumps(record, indent=1)):
        assert texts(read(tmp_path / f"a.{suffix}", content)) == [TEXTS[0]]


def test_columns_of_rows_that_are_lists_can_be_named(tmp_path: Path) -> None:
    rows = [["first", TEXTS[0]], ["second", TEXTS[1]]]
    assert texts(read(tmp_path / "a.json", json.dumps(rows), text_column="column1")) == ["first", "second"]
    found = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert (texts(found), found.reading["columns"]["a.jsonl"]["column"]) == (TEXTS[:2], "column2")


@pytest.mark.parametrize(
    ("content", "words", "hint"),
    [
        ({"train": ROWS, "test": ROWS[:1]}, "several lists, and it is not clear which one holds the texts; columns: train, test", "a file of its own"),
        ({"conversations": [{"from": "human", "value": TEXTS[0]}]}, "no answer of the assistant", "--data-format"),
        ([[{"role": "user", "content": TEXTS[0]}]] * 2, "no answer of the assistant", "--data-format"),
        ([[1, 2], ["a"]], "its rows are lists", '{"text": …}'),
        ({"a": 1, "b": {"c": 2}, "d": {"e": 3}}, "no column holds text; columns: a: numbers", "--text-column"),
        ({"columns": ["a"], "data": [["x", "y"]]}, "row 1: 2 cells, but 1 columns are named", None),
        ([{"id": f"conv-{number}", "url": f"https://a.org/{number}"} for number in range(5)], "columns: id: identifiers; url: addresses", "--text-column"),
        (17, "the number 17 instead of", None),
        ([1, 2], "the number 1 instead of text", "an object or a string"),
        ({}, "no column holds text; columns: none", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_what_is_unclear_is_refused(tmp_path: Path, content: Any, words: str, hint: str | None, suffix: str) -> None:
    error = refusal(tmp_path / f"a.{suffix}", json.dumps(content))
    assert words in error.message
    assert (hint or "") in (error.hint or "")


@pytest.mark.parametrize(
    ("content", "words", "hint"),
    [
        (LINES.replace("}\n", "},\n"), "its lines end with commas", "[ and ]"),
        ("".join(f"{row}\n" for row in ROWS), "Python's notation", "json.dumps"),
        ("<!doctype html>\n<html></html>\n", "HTML or XML", "the file itself"),
        ("\n".join(TEXTS), "plain text", ".txt"),
        ('{"text": "a"\n{"text": "b"\n', "line 2, character 1: not valid JSON", None),
        ('[{"text": "a"},\n {"text": ]', "line 2, character 11: not valid JSON", None),
        ("[" * 100_000, "JSON that cannot be read", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_what_is_no_json_is_said(tmp_path: Path, content: str, words: str, hint: str | None, suffix: str) -> None:
    error = refusal(tmp_path / f"a.{suffix}", content)
    assert words in error.message
    assert (hint or "") in (error.hint or "")


BAD = {
    "null": '{"body": null}', "a number": '{"body": 42}', "a list": '{"body": ["a"]}', "an object": '{"body": {"a": "b"}}',
    "no column 'body'": '{"other": "a"}', "not valid JSON": '{"body": ', "the number 17": "17", "a string among objects": '"a"',
    "half a surrogate pair": '{"body": "\\ud800"}', "NUL character": '{"body": "a\\u0000b"}', "JSON that cannot": "[" * 50_000,
}  # fmt: skip


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("what", BAD)
def test_one_bad_row_of_many_is_left_out_and_named(tmp_path: Path, what: str, place: str) -> None:
    good = LINES * 30
    content = BAD[what] + "\n" + good if place == "first" else good + BAD[what] + "\n"
    found = read(tmp_path / "a.jsonl", content)
    assert texts(found) == TEXTS * 30
    assert found.reading["columns"]["a.jsonl"]["column"] == "body"
    row = 1 if place == "first" else 121
    (note,) = found.reading["bad_rows"].values()
    assert note["rows"] == 1
    assert note["first"][0].startswith(f"a.jsonl, row {row} (line {row})")
    if what != "a number":
        assert what in note["first"][0]
    assert f"row {row} (line {row})" in refusal(tmp_path / "a.jsonl", content, bad_rows="stop").message


def test_too_many_bad_rows_stop_unless_all_are_to_be_left_out(tmp_path: Path) -> None:
    content = LINES * 30 + '{"body": null}\n' * 2
    error = refusal(tmp_path / "a.jsonl", content)
    assert error.message.startswith(
        "a.jsonl: 2 of 122 rows hold no text (a.jsonl, row 121 (line 121), column 'body': null;"
    )
    assert "--bad-rows skip-all" in (error.hint or "")
    assert texts(read(tmp_path / "a.jsonl", content, bad_rows="skip-all")) == TEXTS * 30
    blank = read(tmp_path / "a.jsonl", LINES * 30 + '{"body": ""}\n{"body": " "}\n' * 5)
    assert (texts(blank), blank.reading["bad_rows"]) == (TEXTS * 30, {})
    assert blank.notes == ["blank rows left out: 10"]


def test_the_columns_are_those_of_many_rows(tmp_path: Path) -> None:
    sparse = "".join(
        json.dumps({"id": number} if number % 2 else {"content": TEXTS[0] + str(number)}) + "\n"
        for number in range(100)
    )
    assert "50 of 100 rows hold no text" in refusal(tmp_path / "a.jsonl", sparse).message
    assert len(texts(read(tmp_path / "a.jsonl", sparse, bad_rows="skip-all"))) == 50
    late = '{"id": 1}\n' + LINES * 40
    assert texts(read(tmp_path / "a.jsonl", late)) == TEXTS * 40


def test_many_texts_by_name(tmp_path: Path) -> None:
    many = {f"story {number}": f"{TEXTS[0]} And the number {number}." for number in range(12)}
    assert texts(read(tmp_path / "a.json", json.dumps(many))) == list(many.values())
    few = dict(list(many.items())[:3])
    assert "it is not clear which column" in refusal(tmp_path / "a.json", json.dumps(few)).message
