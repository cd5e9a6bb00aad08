"""Rows of CSV and TSV files: every one is read, left out and counted, or stops the reading."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from distillkit.console import Console
from distillkit.data import csv_rows
from distillkit.data.document import DocumentSet
from distillkit.data.sources import load_documents
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters

PROSE = [f"The bell of town {number} rang, and nobody heard it over the wind." for number in range(300)]


def load(path: Path, **settings: object) -> DocumentSet:
    return load_documents(Parameters(dataset_path=str(path), **settings), Console(quiet=True))  # type: ignore[arg-type]


def texts(path: Path, **settings: object) -> list[str]:
    return [document.text for document in load(path, **settings).splits["all"]]


def refusal(path: Path, **settings: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(path, **settings)
    return caught.value


def write(path: Path, rows: list[list[str]], **dialect: object) -> Path:
    stream = io.StringIO()
    csv.writer(stream, **dialect).writerows(rows)  # type: ignore[arg-type]
    path.write_bytes(stream.getvalue().encode())
    return path


def numbered(cells: list[str]) -> list[list[str]]:
    return [["id", "text"], *([str(number), cell] for number, cell in enumerate(cells))]


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_only_the_text_column_is_learnt(tmp_path: Path, delimiter: str) -> None:
    path = write(tmp_path / "a.csv", numbered(PROSE), delimiter=delimiter)
    loaded = load(path)
    assert [document.text for document in loaded.splits["all"]] == PROSE
    assert loaded.reading["columns"] == {"a.csv": {"column": "text", "why": "called text"}}
    assert "first row names the columns" in loaded.reading["read_as"]["a.csv"]
    assert any("first row names the columns" in note for note in loaded.notes)


def test_bad_rows_are_left_out_and_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", numbered([*PROSE, "", "42"]))
    loaded = load(path)
    assert [document.text for document in loaded.splits["all"]] == PROSE
    bad = loaded.reading["bad_rows"]["a.csv"]
    assert bad["rows"] == 2
    assert bad["first"] == [
        "a.csv, row 301 (line 302), column 'text': empty",
        "a.csv, row 302 (line 303), column 'text': the number 42",
    ]
    assert refusal(path, bad_rows="stop").message == "a.csv, row 301 (line 302), column 'text': empty instead of text"


def test_rows_of_another_width(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [*numbered(PROSE), ["300", "cut", "in two"], ["301"]])
    loaded = load(path)
    assert [document.text for document in loaded.splits["all"]] == PROSE
    assert loaded.reading["bad_rows"]["a.csv"]["first"] == [
        "a.csv, row 301 (line 302): 3 cells, but the header names 2 columns",
        "a.csv, row 302 (line 303): 1 cells, but the header names 2 columns",
    ]
    assert refusal(path, bad_rows="stop").message.endswith("3 cells, but the header names 2 columns")
    mostly = write(
        tmp_path / "b.csv", [["id", "text"], ["1", "one good row"], ["2", "cut", "in two"], ["3", "a", "b", "c"]]
    )
    assert "2 of 3 rows hold no text" in refusal(mostly).message


def test_rows_of_nothing_but_delimiters_are_blank(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write(path, numbered(PROSE))
    path.write_bytes(path.read_bytes() + b",\n" * 50 + b"   \n\n")
    assert texts(path) == PROSE
    assert "blank rows left out: 51" in load(path).notes


def test_a_headerless_file_keeps_its_first_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", numbered(PROSE)[1:])
    assert texts(path) == PROSE
    assert texts(path, text_column="column2") == PROSE
    assert "no row names the columns (column1, column2)" in load(path).reading["read_as"]["a.csv"]
    path.write_text("\n".join(PROSE))
    assert texts(path, csv_delimiter="tab") == PROSE


def test_no_row_is_swallowed_beyond_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole file is checked, not only the lines by which its dialect was found."""
    monkeypatch.setattr(csv_rows, "_SAMPLE_LINES", 100)
    plain = [text.replace(",", "") for text in PROSE]
    lines = ["id\ttext", *(f"{number}\t{text}" for number, text in enumerate(plain))]
    lines[200], lines[210] = '199\t"An opening mark and no end', '209\tand another one here."'
    path = tmp_path / "a.tsv"
    path.write_text("\n".join(lines))
    assert "a.tsv, line 201: a quotation mark opens a cell of 11 lines" in refusal(path).message
    assert len(texts(path, csv_quoting="none")) == 300
    given = load(path, csv_quoting="double")
    assert len(given.splits["all"]) == 290
    assert "a.tsv, line 201: a quoted cell of 11 lines that look like rows" in given.notes
    lines[210] = plain[0]
    path.write_text("\n".join(lines))
    error = refusal(path)
    assert "a.tsv, row 200 (line 201): not valid CSV" in error.message
    assert "--csv-quoting none" in (error.hint or "")


def test_odd_backslashes_beyond_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "_SAMPLE_LINES", 100)
    path = write(tmp_path / "a.csv", numbered([f'"Oh", {text}' for text in PROSE]), doublequote=False, escapechar="\\")
    assert texts(path) == [f'"Oh", {text}' for text in PROSE]
    path.write_text(path.read_text() + '300,"C:\\new, and more"\n')
    assert "a backslash before 'n'" in refusal(path).message


def test_line_ends_inside_cells(tmp_path: Path) -> None:
    cells = [f"{text}\r\nSecond line, too.\r\n\r\nThird." for text in PROSE]
    path = write(tmp_path / "a.csv", numbered(cells))
    assert texts(path) == [cell.replace("\r\n", "\n") for cell in cells]


def test_mark_and_separator_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    body = write(tmp_path / "b.csv", numbered(PROSE), delimiter=";").read_bytes()
    path.write_bytes(b"\xef\xbb\xbfsep=;\r\n" + body)
    assert texts(path) == PROSE
    path.write_bytes("sep=;\r\n".encode("utf-16") + body.decode().encode("utf-16-le"))
    assert texts(path) == PROSE


def test_the_options_win(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text;note\n" + "\n".join(f"{text};'a', b" for text in PROSE))
    assert texts(path, csv_delimiter=";") == PROSE
    assert texts(path, csv_header="absent", text_column="column1")[0] == "text"
    path.write_text("id^text\n" + "\n".join(f"{number}^{text}" for number, text in enumerate(PROSE)))
    assert texts(path, csv_delimiter="^") == PROSE
    path.write_text('id,text\n1,"A text."\n2,"Another one."\n')
    assert texts(path, csv_quoting="none") == ['"A text."', '"Another one."']


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [["text", "text"], *([text, text] for text in PROSE)])
    assert "2 columns are called 'text'" in refusal(path).message


def test_the_limit_of_the_csv_module_is_restored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", numbered(["word " * 100_000]))
    before = csv.field_size_limit()
    texts(path)
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("mark", ["NA", "NaN", "NULL", "null", "\\N", "<NA>", "#N/A"])
def test_marks_of_missing_values_are_no_texts(tmp_path: Path, mark: str) -> None:
    path = write(tmp_path / "a.csv", numbered([*PROSE[:8], mark, *PROSE[8:]]))
    loaded = load(path)
    assert [document.text for document in loaded.splits["all"]] == PROSE
    assert any(f"{mark} (no value)" in note for note in loaded.notes)
