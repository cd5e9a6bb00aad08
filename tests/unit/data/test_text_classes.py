"""What one value looks like."""

from __future__ import annotations

import random
import re

import pytest

from distillkit.data.text_classes import class_of, looks_like_number

# As it was written first: right, and quadratic.
SLOW_NUMBER = re.compile(r"\s*[+-]?(\d[\d_ ]*)?[.,]?\d+([eE][+-]?\d+)?\s*")


def test_numbers_are_what_they_were() -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices("12 _.,eE+-\n\u0663x", k=draw.randint(0, 9))) for _ in range(60_000)]
    assert [looks_like_number(text) for text in texts] == [SLOW_NUMBER.fullmatch(text) is not None for text in texts]


@pytest.mark.parametrize("piece", ["1", "1 ", "1_", " ", ".1", "1e", "1,", "+", "-1", "\u0663"])
@pytest.mark.parametrize("end", ["", "x", " ", "."])
def test_long_cells_take_no_longer_than_their_length(piece: str, end: str) -> None:
    """A million characters: what grows faster than they do does not come to an end here."""
    looks_like_number(piece * (1_000_000 // len(piece)) + end)
    class_of(piece * (1_000_000 // len(piece)) + end)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("number", ["12", "-1.5e3", " 1 000 ", "3,14"]),
        ("address", ["https://a.org/b?c=d", "www.a.org", "s3://bucket/key", "mailto:a@b.org", "//cdn.org/x.js", "10.1000/xyz123", "https://a.b https://c.d"]),
        ("e-mail", ["someone@example.org"]),
        ("identifier", ["conv-0000-000", "Q42", "user_12", "123e4567-e89b-12d3-a456-426614174000", "d41d8cd98f00b204e9800998ecf8427e", "v1.2.3", "the-quick-brown-fox", "fdp:12"]),
        ("date", ["2021-03-04", "2021-03-04T10:00:00.000Z", "04/03/2021 10:15", "Mon, 4 March 2021 10:00:00 GMT", "March 4th, 2021"]),
        ("file", ["img_1.jpg", "data/img/1.png", "C:\\data\\a.txt", "/usr/share/dict", "Holiday picture 3.png"]),
        ("encoded", ["aGVsbG8gd29ybGQsIHRoaXMgaXMgYSB0ZXN0IG9mIGJhc2U2NA" * 3 + "=="]),
        ("json", ['{"a": "a text of some words"}', '["one two three four five."]']),
        ("list", ["war, love, history, France", "deep learning; transformers; attention"]),
        ("symbols", ["---", "978-3-16-148", "…"]),
        ("words", ["apple", "Überraschung", "well-known"]),
        ("short", ["John Smith", "The Great Gatsby", "Notre Dame"]),
        ("prose", [
            "Dogs bark loudly.", "a man riding a wave on a board", "Roses are red\nviolets are blue", "def f(x):\n    return x + 1",
            "Der alte Mann ging am Abend in den Garten.", "Сегодня хорошая погода, и мы пошли гулять", "今天天气很好，我们去公园玩。",
            "私は昨日、友達と一緒に映画を見ました", "วันนี้อากาศดีมากเราไปเที่ยวสวนสาธารณะกันเถอะ", "오늘은 날씨가 정말 좋아서 공원에 갔다.",
            "ذهب الولد إلى المدرسة في الصباح", "आज मौसम बहुत अच्छा है और हम बाहर गए।", "<p>It was a dark and stormy night.</p>",
            "床前明月光，疑是地上霜。", "See https://a.org for what he said about it",
        ]),
    ],
)  # fmt: skip
def test_values_are_told_apart(kind: str, values: list[str]) -> None:
    assert {value: class_of(value) for value in values} == dict.fromkeys(values, kind)
