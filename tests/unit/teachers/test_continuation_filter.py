"""Loops are caught, and what people write passes."""

from __future__ import annotations

import random

import pytest
from tiny_models import make_paragraph

from distillkit.teachers.continuation_filter import ContinuationFilter, reason_to_drop

VERSE = """Jingle bells, jingle bells,
Jingle all the way;
Oh! what joy it is to ride
In a one-horse open sleigh.
Jingle bells, jingle bells,
Jingle all the way;
Oh! what joy it is to ride
In a one-horse open sleigh.

A day or two ago
I thought I'd take a ride
And soon, Miss Fanny Bright
Was seated by my side."""

CUMULATIVE = """This is the house that Jack built.

This is the malt
That lay in the house that Jack built.

This is the rat,
That ate the malt
That lay in the house that Jack built.

This is the cat,
That killed the rat,
That ate the malt
That lay in the house that Jack built.

This is the dog,
That worried the cat,
That killed the rat,
That ate the malt
That lay in the house that Jack built."""

ROUND = """Row, row, row your boat,
Gently down the stream,
Merrily, merrily, merrily, merrily,
Life is but a dream.
"""

STATES = [
    "Alabama",
    "Alaska",
    "Arizona",
    "Arkansas",
    "California",
    "Colorado",
    "Connecticut",
    "Delaware",
    "Florida",
    "Georgia",
    "Hawaii",
    "Idaho",
]

GOOD = {
    "verse": VERSE,
    "cumulative rhyme": CUMULATIVE,
    "a round sung twice": ROUND * 2,
    "numbered list": "\n".join(f"{number}. {name} (United States)" for number, name in enumerate(STATES, 1)),
    "bullets": "\n".join(f"* {name}" for name in STATES),
    "figures": "\n".join(f"{1990 + row}  {row * 37 % 91}  {row * 53 % 97}.{row % 10}" for row in range(30)),
    "counting": ", ".join(map(str, range(1, 120))),
    "underlined heading": "Introduction\n" + "=" * 64 + "\n\nThis is the manual of a small tool.\n",
    "ends in a rule": "Here the first part ends, and the second has not begun yet.\n\n" + "-" * 72,
    "table": "\n".join(
        line for name in STATES for line in (f"| {name:<30} | {len(name):>20} |", f"+{'-' * 32}+{'-' * 22}+")
    ),
    "code": "if left is None:\n    raise ValueError('left')\nif right is None:\n    raise ValueError('right')\n"
    "for index in range(len(left)):\n    total += left[index] * right[index]\nreturn total\n",
    "speech": "“No, no, no, no,” he said. “No!”",
    "one word": " Yes.",
    "Russian": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.",
    "Chinese": "道可道，非常道；名可名，非常名。无名天地之始，有名万物之母。故常无欲，以观其妙；常有欲，以观其徼。",
    "emoji and accents": "Naïve café 👩‍👩‍👧 — “déjà vu”\u2028…",
}

PARAGRAPH = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief. "
)

LOOPS = {
    "sentence": "The king was dead and nobody knew it yet. " + "He was a good man. " * 5,
    "phrase at the end of a long text": make_paragraph(random.Random(1), 6) + " and so on," + " the same thing," * 8,
    "cut off in the middle of the unit": make_paragraph(random.Random(2), 6)
    + " I do not know what to say." * 6
    + " I do",
    "in the middle": make_paragraph(random.Random(3), 2)
    + " over and over again" * 20
    + make_paragraph(random.Random(4), 2),
    "paragraph": PARAGRAPH * 3,
    "lines": "She opened the door.\n" * 10,
    "counted": "".join(f"{number}. The answer is yes.\n" for number in range(1, 12)),
    "syllable": "ha" * 60,
    "Chinese": "我们走吧，天已经黑了。" * 8,
    "a rule and nothing else": "=" * 90,
    "blanks of a form": ("_" * 20 + "\n") * 6,
}


@pytest.mark.parametrize("name", GOOD)
def test_what_people_write_passes(name: str) -> None:
    assert reason_to_drop(GOOD[name]) is None


@pytest.mark.parametrize("name", LOOPS)
def test_loops_are_caught(name: str) -> None:
    assert reason_to_drop(LOOPS[name]) == "repetition"


def test_prose_passes_at_any_length() -> None:
    generator = random.Random(0)
    for sentences in (1, 3, 10, 30):
        for _ in range(20):
            assert reason_to_drop(make_paragraph(generator, sentences)) is None


def test_reference_pages_pass() -> None:
    from pydoc_data.topics import topics

    pages = [topics[name] for name in sorted(topics)[::5]]
    pieces = [page[begin : begin + 600] for page in pages for begin in range(0, len(page) - 600, 600)]
    assert len(pieces) > 50
    assert [piece for piece in pieces if reason_to_drop(piece)] == []


@pytest.mark.parametrize("text", ["", " ", "\n\n\t \u00a0", "\u3000"])
def test_nothing_is_empty(text: str) -> None:
    assert reason_to_drop(text) == "empty"


@pytest.mark.parametrize("text", ["ab\ufffd\ufffd\ufffd", "\x00\x01\x02word", "\ue000\ue001 x", "\x1b[31m\x1b[0m red"])
def test_noise_is_not_text(text: str) -> None:
    assert reason_to_drop(text) == "not text"


def test_a_little_noise_is_forgiven() -> None:
    assert reason_to_drop("A long enough sentence with one broken byte \ufffd in it.\r\n\tAnd tabs.") is None


def test_duplicates() -> None:
    judge = ContinuationFilter().judge
    assert judge("Once upon", " a time there was a king.") is None
    assert judge("Long ago,", " a time  there was a King. ") == "duplicate"
    assert judge("Once", " upon a time there was a king.") == "duplicate"
    assert judge("Once upon", " a time there was a queen.") is None
    # Dropped ones are not remembered, and the reason that comes first is given.
    assert judge("x", LOOPS["lines"]) == judge("x", LOOPS["lines"]) == "repetition"


def test_a_whole_text_that_equals_another_continuation_is_no_duplicate() -> None:
    judge = ContinuationFilter().judge
    assert judge("Well, ", "yes and no, he said.") is None
    assert judge("yes and", " no, he said.") is None


def test_remembered_ones_count_as_kept() -> None:
    first, second = ContinuationFilter(), ContinuationFilter()
    first.judge("Once", " upon a time there was a king.")
    second.remember("Once", " upon a time there was a king.")
    for filter_ in (first, second):
        assert filter_.judge("Long ago", " upon a time there was a king.") == "duplicate"
