"""What prepare-data says of the texts that it has read."""

from __future__ import annotations

from typing import Any

from distillkit.reports.input_report import input_report


def stats(**more: Any) -> dict[str, Any]:
    def part(examples: int) -> dict[str, int]:
        return {"examples": examples, "documents": examples}

    return {
        "source": "people.csv",
        "splits": {"train": part(1000), "validation": part(20), "test": part(20)},
        "dropped": {"inexact": 0, "too_short": 0},
        "same_tokenizer": True,
        "first_text": "Once upon\n\ta time",
        "reading": {},
        **more,
    }


def test_a_plain_source_needs_few_lines() -> None:
    assert input_report(stats()) == [
        ("source", "people.csv"),
        ("splits", "the source has none: its documents are divided"),
        ("texts", "1,000 to train on, 20 to choose by, 20 to judge by; from 1,000, 20 and 20 documents"),
        ("left out", "nothing"),
        ("tokenizers", "the same"),
        ("first text", "“Once upon⏎⇥a time”"),
    ]  # fmt: skip


def test_all_there_is_to_tell_fits_in_ten_lines() -> None:
    reading = {
        "read_as": {"a.csv": "CSV, delimiter |", "b.csv": "CSV, delimiter |"},
        "columns": {
            "a.csv": {"column": "body", "why": "the only one that is prose"},
            "b.csv": {"column": "text", "why": "called text"},
        },
        "splits": {"train": 900, "test": 60},
        "bad_rows": {"a.csv": {"rows": 4, "first": ["a.csv, row 3: empty", "a.csv, row 9: null"]}},
        "counts": {"blank rows left out": 7},
    }
    report = input_report(
        stats(
            reading=reading,
            dropped={"inexact": 2, "too_short": 1},
            same_tokenizer=False,
            alignment={"positions_aligned": 0.9, "bytes_aligned": 0.95},
            special_tokens={"mode": "auto", "decided": "parse", "names": {"<|im_start|>": 392}},
            normalised={"teacher": {"NFC": 37}},
            first_text="long " * 100,
        )
    )
    lines = dict(report)
    assert len(report) == 10
    assert lines["read as"] == "CSV, delimiter |"
    assert lines["column"] == "a.csv: body (the only one that is prose); b.csv: text (called text)"
    assert lines["splits"] == "as in the source: train 900 documents, test 60 documents"
    assert lines["left out"] == (
        "4 bad rows of a.csv (row 3: empty; row 9: null; …); blank rows: 7; "
        "texts that a tokenizer cannot spell: 2; texts that have fewer than two tokens: 1"
    )
    assert lines["special tokens"] == "read as tokens: <|im_start|> 392×"
    assert lines["changed"] == "NFC: 37 texts, as the teacher's tokenizer does"
    assert lines["tokenizers"] == "different: the teacher guides 90.0 % of the student's tokens (95.0 % of the bytes)"
    assert lines["first text"].endswith("…”")
    assert len(lines["first text"]) < 110


def test_all_that_is_left_out_is_told() -> None:
    reading = {
        "bad_rows": {"a.jsonl": {"rows": 1, "first": ["a.jsonl, row 51 (line 51): not valid JSON"]}},
        "files_left_out": {"no data": 1, "in no split that is used": 57},
    }
    report = dict(input_report(stats(reading=reading, duplicates={"duplicate documents left out of train": 3})))
    assert report["left out"] == (
        "1 bad row of a.jsonl (row 51 (line 51): not valid JSON); no data: 1 file; in no split that is used: 57 files; "
        "duplicate documents of train: 3"
    )


def test_files_that_are_read_alike_are_told_together() -> None:
    read_as = {"a.csv": "CSV, delimiter |", "b.csv": "CSV, delimiter ;", "c.csv": "CSV, delimiter |"}
    more = {f"{number}.csv": "CSV, delimiter |" for number in range(3)}
    of = {how: dict(input_report(stats(reading={"read_as": how_files})))["read as"] for how, how_files in (
        ("two", read_as), ("many", {**read_as, **more}), ("three", {**read_as, "d.csv": "CSV, delimiter :"}),
    )}  # fmt: skip
    assert of["two"] == "a.csv, c.csv: CSV, delimiter |; b.csv: CSV, delimiter ;"
    assert of["many"] == "a.csv, c.csv and 3 more files: CSV, delimiter |; b.csv: CSV, delimiter ;"
    assert of["three"] == "a.csv, c.csv: CSV, delimiter |; b.csv: CSV, delimiter ;; 1 more file otherwise"


def test_how_many_documents_are_divided() -> None:
    lines = dict(input_report(stats(source_documents=4000)))
    assert lines["splits"] == "the source has none: its 4,000 documents are divided"


def test_conversations_are_told_with_their_format_and_the_first_of_them() -> None:
    record = {
        "format": "alpaca", "columns": {"question": "instruction", "answer": "output"}, "why": "found by their names",
    }  # fmt: skip
    messages = {"format": "messages", "columns": {"turns": "chat"}, "why": "the only column of turns"}
    reading = {
        "formats": {"a.csv": record, "b.csv": messages},
        "first_conversation": [["user", "Who?"], ["assistant", "I."]],
    }
    report = dict(input_report(stats(reading=reading)))
    assert report["format"] == (
        "a.csv: alpaca (columns instruction, output; found by their names); "
        "b.csv: messages (column chat; the only column of turns)"
    )
    assert report["first row"] == "user “Who?”, assistant “I.”"
    long = {"formats": {"a": messages}, "first_conversation": [["user", "Who?"], ["assistant", "I."]] * 3}
    assert dict(input_report(stats(reading=long)))["first row"].endswith("user “Who?”, and 3 turns more")
