"""Which column is the text: the one that is named, the one called `text`, the one that is prose; never another one."""

from __future__ import annotations

import json
import random
import uuid
from typing import Any

import pytest

from distillkit.data.columns import choose_column
from distillkit.data.layouts import choose_layout
from distillkit.data.reading_options import ReadingOptions
from distillkit.errors import UsageError

ROWS = 40
WORDS = ["harbour", "lantern", "wagon", "orchard", "violin", "market", "kettle", "mirror", "window", "bakery"]
_draw = random.Random(7)


def sentences(seed: int, words: int = 9) -> list[str]:
    draw = random.Random(seed)
    return [f"She {' '.join(draw.choices(WORDS, k=words))} on day {number}." for number in range(ROWS)]


PROSE = sentences(1)
OTHERS: dict[str, list[Any]] = {
    "identifiers": [f"conv-{number:04}-{number * 7 % 1000:03}" for number in range(ROWS)],
    "uuids": [str(uuid.UUID(int=_draw.getrandbits(128))) for _ in range(ROWS)],
    "hashes": [f"{_draw.getrandbits(256):064x}" for _ in range(ROWS)],
    "addresses": [f"https://example.org/{number}/a-page-about-the-harbour" for number in range(ROWS)],
    "mails": [f"someone{number}@example.org" for number in range(ROWS)],
    "dates": [f"2021-03-{number % 28 + 1:02}T10:00:00Z" for number in range(ROWS)],
    "spoken dates": [f"Mon, {number % 28 + 1} March 2021 10:00:00 GMT" for number in range(ROWS)],
    "files": [f"images/picture_{number}.jpg" for number in range(ROWS)],
    "labels": [_draw.choice(["positive", "negative"]) for _ in range(ROWS)],
    "long labels": [_draw.choice(["I fully agree with this statement.", "I do not agree with it at all."]) for _ in range(ROWS)],
    "names": [f"{_draw.choice(WORDS).title()} {_draw.choice(WORDS).title()}{'abcdefgh'[number % 8]}" for number in range(ROWS)],
    "agents": [f"Mozilla/5.0 (Windows NT 10.0; Win64; x{number}) AppleWebKit/537.36 (KHTML, like Gecko)" for number in range(ROWS)],
    "keywords": [", ".join(_draw.sample(WORDS, 5)) for _ in range(ROWS)],
    "encoded": ["".join(_draw.choices("abcXYZ019+/", k=100)) for _ in range(ROWS)],
    "numbers": list(range(ROWS)),
    "numbers as text": [str(number) for number in range(ROWS)],
    "flags": [True, False] * (ROWS // 2),
    "bytes": [b"\x89PNG"] * ROWS,
    "objects": [{"bytes": b"\x89PNG", "path": "a.png"}] * ROWS,
    "vectors": [[0.5, 1.5]] * ROWS,
    "nothing": [None] * ROWS,
}  # fmt: skip


def refusal(columns: dict[str, list[Any]], wanted: str | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        choose_column(columns, wanted, "a.jsonl")
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_prose_is_never_the_text(kind: str) -> None:
    # Alone, beside conversations, beside prose.
    if kind not in ("names", "long labels"):
        assert kind == "nothing" or "a.jsonl: no column" in refusal({"column": OTHERS[kind]}).message
    turns = [[{"from": "human", "value": "Hello."}, {"from": "gpt", "value": "Good day."}]] * ROWS
    found = choose_layout({"x": OTHERS[kind], "conversations": turns}, ReadingOptions(), "a")
    assert (found.format, found.columns) == ("conversations", {"turns": "conversations"})
    for columns in ({"x": OTHERS[kind], "essay": PROSE}, {"essay": PROSE, "x": OTHERS[kind]}):
        assert choose_column(columns, None, "a") == ("essay", "the only one that is prose")


def test_all_at_once_in_any_order() -> None:
    names = [*OTHERS, "essay"]
    for seed in range(10):
        random.Random(seed).shuffle(names)
        assert choose_column({name: (OTHERS | {"essay": PROSE})[name] for name in names}, None, "a").name == "essay"


@pytest.mark.parametrize(
    "texts",
    [
        ["A dog runs over the grass.", "Two men ride a red bicycle.", "The cat sleeps on a warm roof."],
        ["a dog running over the grass", "two men on a red bicycle", "a cat asleep on some warm roof"],
        ["今天天气很好，我们去公园玩。", "他昨天买了一本新书。", "猫在屋顶上睡觉，狗在院子里跑。"],
        ["วันนี้อากาศดีมากเราไปเที่ยวสวนสาธารณะกันเถอะ", "แมวกำลังนอนหลับอยู่บนหลังคาบ้าน"],
        ["Roses are red,\nviolets are blue", "The sea\nis deep\nand cold"],
        ["def f(x):\n    return x + 1\n", "for i in range(3):\n    print(i)\n"],
        ["int main(void) {\n  return 0;\n}", "#include <stdio.h>\nint x;\n"],
    ],
    ids=["sentences", "captions", "Chinese", "Thai", "poems", "Python", "C"],
)
def test_short_prose_is_prose(texts: list[str]) -> None:
    assert choose_column({"essay": texts}, None, "a") == ("essay", "the only column")
    numbers = [f"x-{number}" for number in range(len(texts))]
    assert choose_column({"key": numbers, "essay": texts}, None, "a").name == "essay"


def test_one_odd_row_decides_nothing() -> None:
    for odd in (None, 7, ["a"], "", "x-1", {"a": 1}):
        assert (
            choose_column({"n": ["a b c d e f."] + OTHERS["identifiers"], "essay": [odd, *PROSE]}, None, "a").name
            == "essay"
        )


def test_the_column_called_text_is_it_where_it_holds_text() -> None:
    for name in ("text", "Text", "TEXT"):
        assert choose_column({"essay": PROSE, name: OTHERS["labels"]}, None, "a") == (name, "called text")
    # A flag or a number of that name is not what is meant; neither is another column where the texts are hidden in it.
    assert choose_column({"text": OTHERS["numbers"], "essay": PROSE}, None, "a").name == "essay"
    assert choose_column({"text": OTHERS["numbers as text"], "essay": PROSE}, None, "a").name == "essay"
    for hidden in ([b"A text."] * ROWS, [["A text."]] * ROWS, [{"body": "A text."}] * ROWS):
        error = refusal({"text": hidden, "essay": PROSE})
        assert "columns: text: " in error.message
        assert "if the text is in text" in (error.hint or "")


def test_titles_beside_what_holds_the_texts() -> None:
    titles = [f"The {word} of the north and of the south" for word in WORDS]
    for inside in ([[PROSE[0]] * 4] * 10, [[{"heading": "A", "body": PROSE[0] * 3}]] * 10, [{"a": PROSE[1] * 3}] * 10):
        for name in ("title", "caption", "column"):
            error = refusal({name: titles, "parts": inside})
            assert "with texts in them" in error.message
            assert "if the text is in parts" in (error.hint or "")
    assert choose_column({"title": titles, "body": sentences(2, 30)[:10]}, None, "a").name == "body"
    assert (
        choose_column({"headline": titles, "url": OTHERS["addresses"][:10], "report": PROSE[:10]}, None, "a").name
        == "report"
    )
    # Alone, they are what is meant.
    assert choose_column({"caption": titles}, None, "a").name == "caption"


def test_lists_written_as_text_are_proposed_rather_than_the_titles_beside_them() -> None:
    steps = [json.dumps([sentence, *PROSE[:4]]) for sentence in PROSE]
    titles = [f"Cake {word}" for word in sentences(3, 2)]
    hint = refusal({"title": titles, "directions": steps[: len(titles)]}).hint
    assert (
        hint
        == "if the text is in directions, write it into a column of plain text; else name the column with --text-column"
    )


def test_two_columns_of_prose_are_refused_unless_one_is_called_as_texts_are() -> None:
    error = refusal({"first": PROSE, "second": sentences(2, 30), "n": OTHERS["numbers"]})
    assert error.message == (
        "a.jsonl: it is not clear which column holds the text; columns: first: prose; second: prose; n: numbers"
    )
    assert "--text-column second" in (error.hint or "")
    for name in ("content", "body", "review_body", "reviewText", "正文"):
        assert choose_column({"first": PROSE, name: sentences(2)}, None, "a").name == name
    assert "not clear" in refusal({"content": PROSE, "body": sentences(2)}).message
    assert "not clear" in refusal({"text_en": PROSE, "text_de": sentences(2)}).message


def test_sentences_that_repeat_are_a_text_only_where_the_name_says_so() -> None:
    repeated = PROSE[:3] * 20
    identifiers = [f"x-{number}" for number in range(60)]
    assert "the same few values" in refusal({"id": identifiers, "opinion": repeated}).message
    assert choose_column({"id": identifiers, "body": repeated}, None, "a").name == "body"
    assert choose_column({"opinion": repeated}, None, "a").name == "opinion"
    assert choose_column({"body": repeated, "opinion": sentences(3) + sentences(4)[:20]}, None, "a").name == "opinion"


def test_half_of_a_pair_alone_is_a_text() -> None:
    for name in ("output", "prompt", "question", "response"):
        assert choose_column({name: PROSE, "label": OTHERS["numbers"]}, None, "a").name == name


def test_a_named_column_is_taken_if_it_holds_text() -> None:
    columns = OTHERS | {"essay": PROSE}
    for name in ("identifiers", "labels", "numbers as text", "nothing"):
        assert choose_column(columns, name, "a") == (name, "named by --text-column")
    assert "column 'bytes' does not hold text but bytes" in refusal(columns, "bytes").message
    assert "--text-column essay" in (refusal(columns, "numbers").hint or "")
    assert refusal(columns, "esay").hint == "did you mean --text-column essay?"


def test_words_are_read_only_where_nothing_else_is() -> None:
    assert choose_column({"word": WORDS}, None, "a") == ("word", "the only column")
    assert choose_column({"n": OTHERS["numbers"], "body": ["the body"]}, None, "a").name == "body"
    assert "no column is prose" in refusal({"n": OTHERS["numbers"], "word": WORDS}).message
    assert "no column is prose; columns: label: single words" in refusal({"label": WORDS}).message
    assert "no column holds text; columns: none" in refusal({}).message
