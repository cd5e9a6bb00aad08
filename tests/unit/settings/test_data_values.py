"""Encodings and delimiters that cannot be are refused before anything is read or written."""

from __future__ import annotations

import codecs
from encodings.aliases import aliases

import pytest

from distillkit.errors import UsageError
from distillkit.settings.data_values import check_delimiter, check_encoding, delimiter_character
from distillkit.settings.resolve import resolve


@pytest.mark.parametrize(
    "value", ["utf-8", "UTF8", "cp1252", "latin1", "utf-16", "utf-32-be", "gb18030", "Shift_JIS", "cp037"]
)
def test_encodings_of_text_files(value: str) -> None:
    assert resolve({"encoding": value}).parameters.encoding == value


@pytest.mark.parametrize(
    "value", ["cp12521", "rot13", "base64", "zlib", "idna", "utf-7", "unicode_escape", "a\0b", "\ud800", "x" * 5000]
)
def test_what_is_no_encoding_of_text_files(value: str) -> None:
    with pytest.raises(UsageError, match="is no encoding of text files") as raised:
        resolve({"encoding": value})
    assert raised.value.hint


def test_a_slip_of_the_pen_is_guessed() -> None:
    with pytest.raises(UsageError) as raised:
        check_encoding("cp1253x", "flag")
    assert "did you mean cp1253?" in (raised.value.hint or "")


def test_every_encoding_that_is_let_through_decodes_in_pieces() -> None:
    let_through = 0
    for name in sorted({*aliases.values()}):
        try:
            check_encoding(name, "flag")
        except UsageError:
            continue
        let_through += 1
        decoder = codecs.getincrementaldecoder(name)()
        assert isinstance(decoder.decode("A text.".encode(name)), str)
        decoder.getstate()
    assert let_through > 80


@pytest.mark.parametrize(
    ("value", "character"), [("tab", "\t"), ("\\t", "\t"), ("\t", "\t"), ("|", "|"), ("^", "^"), (" ", " "), ("§", "§")]
)
def test_delimiters(value: str, character: str) -> None:
    given = resolve({"csv_delimiter": value}).parameters.csv_delimiter
    assert given == value
    assert delimiter_character(given) == character


@pytest.mark.parametrize("value", [",,", "x", "7", '"', "'", "\n", "\0", "\ud800", "tabs"])
def test_what_cannot_part_cells(value: str) -> None:
    with pytest.raises(UsageError, match="csv_delimiter"):
        check_delimiter(value, "flag")
    with pytest.raises(UsageError, match="csv_delimiter"):
        resolve({"csv_delimiter": value})
