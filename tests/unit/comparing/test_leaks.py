"""Texts that were learnt are found however they were cut: against sets of all substrings."""

from __future__ import annotations

import random

from distillkit.comparing.leaks import STRETCH, KnownTexts, letters


def substrings(text: str) -> set[str]:
    """The naive reference: every stretch of a text as a string."""
    kept = "".join(letter for letter in text if letter.isalnum())
    return {kept[at : at + STRETCH] for at in range(len(kept) - STRETCH + 1)} or ({kept} if kept else set())


def met(documents: list[list[str]], learnt: list[str]) -> list[bool]:
    known = KnownTexts(documents)
    for text in learnt:
        known.read(text)
    return known.met()


def test_equals_the_sets_of_substrings() -> None:
    """Few letters, so that texts share many stretches that are almost, but not quite, fifty letters long."""
    draw = random.Random(5)
    blocks = ["".join(draw.choices("ab é9\n", k=draw.choice((20, 45, 49, 50, 60)))) for _ in range(6)]

    def text(count: int) -> str:
        return "".join(draw.choice(blocks) for _ in range(count))

    found = []
    for _ in range(40):
        documents = [[text(draw.randrange(1, 4)) for _ in range(draw.randrange(1, 3))] for _ in range(6)]
        learnt = [text(draw.randrange(1, 5)) for _ in range(2)]
        stretches = set().union(*map(substrings, learnt))
        expected = [any(substrings(one) & stretches for one in own) for own in documents]
        assert met(documents, learnt) == expected
        found += expected
    assert 20 < sum(found) < len(found) - 20  # Both outcomes are there.


def test_another_cut_white_space_and_punctuation_hide_nothing() -> None:
    words = [f"word{number}" for number in range(60)]
    whole = " ".join(words)
    assert met([[whole], ["-".join(words[20:40])], [whole.upper()]], ["x " + ",\n".join(words[10:50])]) == [
        True, True, False,
    ]  # fmt: skip
    assert met([[whole]], [" ".join(words[:5])]) == [False]


def test_a_short_text_has_to_be_the_whole_of_one_that_was_learnt() -> None:
    assert met([["Yes, of course."], ["Yes."], ["?!"]], ["Yes of course", "Oh yes. " * 20]) == [True, False, False]


def test_a_text_longer_than_any_before() -> None:
    draw = random.Random(1)
    long = "".join(draw.choices("abcdefgh", k=50_000))
    assert met([[long[30_000:30_060]], [long[:49] + "z" * 9]], [long]) == [True, False]
    assert letters("a_b c-9é") == "abc9é"
