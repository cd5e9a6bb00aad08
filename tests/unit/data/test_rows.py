"""Rows of a file -> documents: which lines are headings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillkit.data.rows import heading_depth


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("= Title =", 1),
        ("= = Section = =", 2),
        ("= = = A = b = = =", 3),
        ("= A =\n= B =", 1),
        ("= Title", 0),
        ("= = Title =", 0),
        ("== Title ==", 0),
        ("= =", 0),
        ("= = =", 0),
        ("=", 0),
        ("", 0),
        ("Title", 0),
        ("=  Title =", 0),
    ],
)
def test_headings(text: str, depth: int) -> None:
    assert heading_depth(text) == depth


@given(st.text("= x\n", max_size=24))
def test_headings_are_those_of_the_pattern(text: str) -> None:
    match = re.fullmatch(r"(=(?: =)*) [^=\s].* \1", text, re.DOTALL)
    assert heading_depth(text) == (match[1].count("=") if match else 0)


def test_a_long_row_of_marks_takes_linear_time() -> None:
    """The pattern would compare the marks on the left at every place of the row."""
    marks = "= " * 100_000
    assert heading_depth(f"{marks}x {marks}{marks}y") == 0
    assert heading_depth(f"{marks}x {marks}{marks}".strip()) == 100_000
