"""One policy for rows without a text that can be used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distillkit.data.bad_rows import BadRow, text_row, usable_rows
from distillkit.data.notes import ReadingNotes
from distillkit.data.rows import Row
from distillkit.errors import UsageError


def rows(good: int, bad: int) -> Iterator[Row | BadRow]:
    for number in range(1, good + bad + 1):
        yield BadRow(f"a, row {number}", "null") if number <= bad else Row(f"text {number}", f"a:{number}")


def test_up_to_a_hundredth_is_left_out_and_named() -> None:
    notes = ReadingNotes()
    assert len(list(usable_rows(rows(495, 5), "skip", "a", notes))) == 495
    first = ["a, row 1: null", "a, row 2: null", "a, row 3: null"]
    assert notes.record()["bad_rows"] == {"a": {"rows": 5, "first": first}}
    assert notes.lines() == [f"a: 5 bad rows left out ({'; '.join(first)}; …)"]
    with pytest.raises(UsageError, match=r"a: 5 of 499 rows hold no text \(a, row 1: null; a, row 2") as caught:
        list(usable_rows(rows(494, 5), "skip", "a", ReadingNotes()))
    assert "--bad-rows skip-all" in (caught.value.hint or "")
    assert len(list(usable_rows(rows(1, 9), "skip-all", "a", notes))) == 1


def test_the_first_one_stops_where_it_is_to() -> None:
    found: list[Row] = []
    with pytest.raises(UsageError, match="a, row 1: null instead of text"):
        found.extend(usable_rows(rows(99, 1), "stop", "a", ReadingNotes()))
    assert not found
    fault: list[Row | BadRow] = [BadRow("a, row 1", "not valid JSON", is_fault=True)]
    with pytest.raises(UsageError, match=r"a, row 1: not valid JSON$"):
        list(usable_rows(fault, "stop", "a", ReadingNotes()))


def test_what_is_a_text() -> None:
    assert text_row(" a\u2028b ü ", "w", "o") == Row(" a\u2028b ü ", "o")
    assert text_row("", "w", "o") == Row("", "o")
    for value, what in (
        (None, "null"),
        (True, "true or false"),
        (1.5, "the number 1.5"),
        ({}, "an object"),
        (b"a", "a bytes"),
    ):
        assert text_row(value, "w", "o") == BadRow("w", what)
    for value, what in (("a\0", "NUL character: not text"), ("a\udfff", "half a surrogate pair (\\udfff) is not text")):
        assert text_row(value, "w", "o") == BadRow("w", what, is_fault=True)
