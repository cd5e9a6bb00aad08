"""Where texts may be cut: grapheme clusters as Unicode defines them, and paragraphs, lines, sentences, words."""

from __future__ import annotations

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from distillkit.data.text_boundaries import Break, TextBoundaries, cluster_boundaries, cluster_start

# A letter of every class that the rules of Unicode's Annex 29 tell apart.
CLASSES = "a \r\n\t\u0301\u0903\u0600\u1100\u1161\u11a8가각\u0915\u094d\u093c\u0e01\u0e33👩👍🏽\u200d❤\ufe0f🇩🇪1\u20e3漢"
CLUSTERS = [
    "e\u0301", "각", "กำ", "क्षि", "ক্ষ", "க்", "👩\u200d👩\u200d👧", "👍🏽", "🇩🇪", "1\ufe0f\u20e3",
    "🐻\u200d❄\ufe0f", "\r\n", " \u0301", "a" + "\u0301" * 50, "\u06001", "🏴\U000e0067\U000e0062\U000e007f",
]  # fmt: skip


def places_of_clusters(text: str) -> list[int]:
    """The library's own clusters, one after another, in bytes."""
    lengths = [len(cluster.encode()) for cluster in regex.findall(r"\X", text)]
    return [0, *np.cumsum(lengths).tolist()]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_cluster_is_never_parted(cluster: str) -> None:
    size = len(cluster.encode())
    assert cluster_boundaries(cluster * 3).tolist() == [0, size, 2 * size, 3 * size]
    assert [cluster_start(cluster * 2, 0, place) for place in range(len(cluster), 2 * len(cluster))] == [
        len(cluster)
    ] * len(cluster)


@given(st.text(CLASSES, max_size=40))
def test_clusters_are_those_of_unicode(text: str) -> None:
    expected = places_of_clusters(text)
    assert cluster_boundaries(text).tolist() == expected
    starts = np.array(expected)
    for place in range(1, len(text)):
        byte = len(text[:place].encode())
        last = int(starts[starts <= byte][-1])
        assert len(text[: cluster_start(text, 0, place)].encode()) == last


@pytest.mark.parametrize(
    "unit", ["a", "🇩🇪", "\u0301", "👩\u200d", "क्", "\u1100", "\u0600", "\r", "ภาษา", ". ", "\n", "。"]
)
def test_long_repeats_take_linear_time(unit: str) -> None:
    """What is quadratic in one of them would take minutes."""
    text = unit * (400_000 // len(unit))
    found = TextBoundaries.of(text)
    assert found.clusters[-1] == found.characters[-1] == len(text.encode())
    assert cluster_start(text, 0, len(text) - 1) <= len(text) - 1


def test_what_ends_where() -> None:
    text = "One, two.  Three!\nFour\n \n  five 漢字。六”七… (eight?) nine"
    found = TextBoundaries.of(text)
    kinds = found.kinds_at(found.clusters)
    at = {len(text[:place].encode()): place for place in range(len(text) + 1)}
    behind = {kind: [text[at[int(place)] :] for place in found.clusters[kinds == kind]] for kind in Break}
    assert [rest[:4] for rest in behind[Break.SENTENCE]] == [
        "  Th",
        " Thr",
        "Thre",
        "六”七…",
        " (ei",
        "(eig",
        " nin",
        "nine",
    ]
    assert [rest[:4] for rest in behind[Break.LINE]] == ["\nFou", "Four"]
    assert [rest[:4] for rest in behind[Break.PARAGRAPH]] == ["\n \n ", " \n  ", "\n  f", "  fi", " fiv", "five"]
    assert [rest[:4] for rest in behind[Break.WORD]] == [" two", "two.", " 漢字。", "漢字。六"]


@pytest.mark.parametrize(
    ("text", "cut", "rest"),
    [
        ("one two", 3, "two"),
        ("one   two", 4, "two"),
        ("one\n    two", 3, "    two"),
        ("one\n    two", 6, "    two"),
        ("one\n\n \n  two", 3, "  two"),
        ("one\n\n \n  two", 8, "  two"),
        ("onetwo", 3, "two"),
        ("one \u0301two", 3, " \u0301two"),
        ("one  \u0301two", 3, " \u0301two"),
        ("漢。字", 6, "字"),
    ],
)
def test_a_text_goes_on_with_its_indentation(text: str, cut: int, rest: str) -> None:
    found = TextBoundaries.of(text)
    assert text.encode()[found.resume(0, cut) :].decode() == rest


def test_an_indentation_longer_than_a_piece_is_passed() -> None:
    text = "one\n" + " " * 100 + "two"
    assert TextBoundaries.of(text).resume(4, 50) == text.index("two")


def test_blank_lines_at_the_start_are_no_text() -> None:
    assert TextBoundaries.of(" \n\n  one").first_line() == 3
    assert TextBoundaries.of("  one").first_line() == 0
    assert TextBoundaries.of("").first_line() == 0


def test_indented_texts_are_known() -> None:
    assert TextBoundaries.of("def f():\n    return 1\n\n\ndef g():\n    return 2").indented
    assert not TextBoundaries.of("  One.\nTwo.\nThree.").indented
