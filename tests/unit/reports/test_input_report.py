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
        ("texts", "1,000 to train on (of 1,000 documents), 20 to choose by (of 20 documents), 20 to judge by (of 20 documents)"),
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
        "4 bad rows of a.csv (a.csv, row 3: empty; a.csv, row 9: null; …); blank rows: 7; "
        "texts that a tokenizer cannot spell: 2; texts that have fewer than two tokens: 1"
    )
    assert lines["special tokens"] == "read as tokens: <|im_start|> 392×"
    assert lines["changed"] == "NFC: 37 texts, as the teacher's tokenizer does"
    assert lines["tokenizers"] == "different: the teacher guides 90.0 % of the student's tokens (95.0 % of the bytes)"
    assert lines["first text"].endswith("…”")
    assert len(lines["first text"]) < 170
