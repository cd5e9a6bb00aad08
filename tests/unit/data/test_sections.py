"""Cutting texts into sections: nothing but white space is lost, no section is too long, characters stay whole."""

from __future__ import annotations

import signal

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from distillkit.data.cleaning import clean_text, leading_blank_lines, text_digest
from distillkit.data.sections import cut_sections, stream_sections
from distillkit.errors import Interrupted
from distillkit.interrupts import graceful_signals


@given(
    st.text(alphabet="ab .\n\n\té漢😀\u0301\u2028", max_size=400),
    st.integers(16, 80),
    st.integers(1, 50),
)
def test_sections_hold_all_words_within_the_limit_however_the_text_arrives(text: str, limit: int, block: int) -> None:
    sections = cut_sections(text, limit)
    assert "".join("".join(section.text for section in sections).split()) == "".join(text.split())
    assert all(0 < len(section.text.encode("utf-8")) <= limit for section in sections)
    blocks = [text[start : start + block] for start in range(0, len(text), block)]
    streamed = "".join("".join(section.text for section in stream_sections(blocks, limit)).split())
    assert streamed == "".join(text.split())
    assert [section.is_last for section in sections] == [False] * (len(sections) - 1) + [True] * bool(sections)


@given(st.lists(st.text(alphabet="ab é", max_size=12), max_size=30))
def test_every_section_says_on_which_line_it_begins(lines: list[str]) -> None:
    for section in cut_sections("\n".join(lines), 24):
        first = section.text.split("\n")[0].rstrip()
        assert first in lines[section.line - 1]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("aaaa aaaa\n\nbbbb bbbb\nbbb", "aaaa aaaa"),
        ("aaaa aaaa aaaa\nbbbb bbbb bbbb", "aaaa aaaa aaaa"),
        ("aaaa. Aaaa aaa. Bbbb bbbb bbbb", "aaaa. Aaaa aaa."),
        ("aaaa aaaa aaaa bbbb bbbb", "aaaa aaaa aaaa"),
        ("a" * 40, "a" * 16),
        ("漢字漢字。漢字漢字漢字", "漢字漢字。"),
    ],
)
def test_the_best_boundary_within_reach_is_taken(text: str, first: str) -> None:
    assert cut_sections(text, 16)[0].text == first


def test_short_paragraphs_are_joined_and_wrapped_lines_stay() -> None:
    text = "One line\nwrapped.\n\nTwo.\n\nThree."
    assert [section.text for section in cut_sections(text, 1000)] == [text]
    assert [section.text for section in cut_sections(text, 24)] == ["One line\nwrapped.", "Two.\n\nThree."]


def test_no_cut_within_a_character_with_marks_or_a_joined_emoji() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    for text in ("e\u0301" * 60, family * 20, "👍🏽" * 30):
        for section in cut_sections(text, 40):
            assert section.text[0] not in "\u0301\u200d\U0001f3fd"
            assert section.text[-1] != "\u200d"
    assert all(len(section.text) % len(family) == 0 for section in cut_sections(family * 20, 40))


@pytest.mark.parametrize(
    "text",
    [
        "क्ष" * 60,
        "🇩🇪" * 60,
        "각" * 60,
        "กำ" * 60,
        "word \u0301" * 40,
        "e" + "\u0301" * 30 + "ab" * 30,
        "a" * 15 + "e\u0301" * 20,
    ],
)
@pytest.mark.parametrize("block", [3, 16, 1000])
def test_no_cut_within_a_grapheme_cluster(text: str, block: int) -> None:
    blocks = [text[start : start + block] for start in range(0, len(text), block)]
    clusters = set(regex.findall(r"\X", text))
    for section in stream_sections(blocks, 64):
        assert set(regex.findall(r"\X", section.text)) <= clusters


def test_a_cluster_longer_than_a_section_is_cut_and_nothing_is_lost() -> None:
    text = "a" + "\u0301" * 500
    sections = cut_sections(text, 64)
    assert "".join(section.text for section in sections) == text
    assert max(len(section.text.encode()) for section in sections) <= 64


def test_only_lines_are_indented() -> None:
    """White space that is longer than a section leaves no indentation behind, and a line keeps its own."""
    assert [section.text for section in cut_sections(f"one{' ' * 40}two", 16)] == ["one", "two"]
    assert [section.text for section in cut_sections("one one one one\n    two", 17)] == ["one one one one", "    two"]


@pytest.mark.parametrize("unit", ["a", " ", "\n", "\n ", "\u0301", "👩\u200d", "🇩🇪", ".", ".''", "\u1100", "क्", "。」"])
def test_long_repeats_are_cut_in_linear_time(unit: str) -> None:
    """What is quadratic in one of them would take minutes."""
    repeats = unit * (1_000_000 // len(unit))
    sections = cut_sections(f"x{repeats}y", 8192)
    held = "".join("".join(section.text.split()) for section in sections)
    assert held == f"x{''.join(repeats.split())}y"


def test_cutting_stops_at_a_signal() -> None:
    with graceful_signals():
        sections = stream_sections(("word " * 100_000,), 64)
        next(sections)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            next(sections)


def test_a_long_line_is_cut_without_being_held_whole() -> None:
    def endless() -> object:
        for _ in range(200):
            yield "word " * 2000

    longest = max(len(section.text) for section in stream_sections(endless(), 8192))  # type: ignore[arg-type]
    assert 6000 < longest <= 8192


def test_cleaning_keeps_what_is_text() -> None:
    assert clean_text("\r\n \t\r\n  “Quoted” — it’s\u2028one line \r\n\r\n") == "  “Quoted” — it’s\u2028one line"
    assert clean_text("a\rb") == "a\nb"
    assert clean_text(" \n\u2028\t\n") == ""
    assert clean_text(" \n\n  one\n") == "  one"
    assert [leading_blank_lines(text) for text in (" \n\n  one\n", "  one\n\n", "\u2028\none", "")] == [2, 0, 0, 0]


def test_digest_sees_words_not_white_space() -> None:
    assert text_digest("a  b\nc") == text_digest("a b c ")
    assert text_digest("ab c") != text_digest("a bc")
