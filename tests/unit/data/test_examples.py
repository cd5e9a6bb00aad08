"""From documents to examples: nothing too long, nothing lost, nothing cut inside a character."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
from tiny_models import make_paragraph, tiny_sentencepiece_tokenizer, tiny_tokenizer

from distillkit.data import example_builder
from distillkit.data.document import Document
from distillkit.data.example_builder import ExampleBuilder
from distillkit.data.examples import Example, load_examples, save_examples
from distillkit.data.text_encoder import TextEncoder, make_text_encoder
from distillkit.errors import UsageError

MIXED = (
    "Die Köchin sagte: „Für fünfzig Gäste braucht’s größere Töpfe.“ Съешь же ещё этих мягких французских булок. "
    "🐻‍❄️👩🏽‍🚀 東京は夜の七時。 Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich — naïve façade.\n\n"
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("sentencepiece")
    return {
        "bpe": tiny_tokenizer(384),
        "small": tiny_tokenizer(270, bos="<s>", eos="</s>"),
        "sentencepiece": tiny_sentencepiece_tokenizer(tmp_path_factory.mktemp("sentencepiece")),
    }


def encoder(tokenizers: dict[str, Any], name: str, max_length: int, context: int | None = None) -> TextEncoder:
    return make_text_encoder(tokenizers[name], context, max_length, needs_bytes=True)


def documents(*texts: str, ends_text: bool = True) -> list[Document]:
    return [Document(text, f"test:{number}", ends_text) for number, text in enumerate(texts)]


def long_text(seed: int, sentences: int = 40) -> str:
    return make_paragraph(random.Random(seed), sentences)


def without_space(text: str) -> str:
    return re.sub(r"\s", "", text)


def assert_whole(text: str, examples: list[Example]) -> None:
    """The pieces are disjoint parts of the text, and between them there is nothing but white space."""
    spans = []
    for example in examples:
        assert example.bytes == len(example.text.encode())
    # In the order of the text: each piece is sought behind the one before.
    left = {index: example.text.lstrip() for index, example in enumerate(examples)}
    position = 0
    while left:
        while position < len(text) and text[position].isspace():
            position += 1
        fitting = [index for index, piece in left.items() if text.startswith(piece, position)]
        assert fitting, f"at {position}: {text[position : position + 30]!r} is in no piece"
        index = max(fitting, key=lambda index: len(left[index]))
        spans.append(position)
        position += len(left.pop(index))
    assert not text[position:].strip()


PAIRS = [("bpe", None), ("sentencepiece", None), ("bpe", "sentencepiece"), ("sentencepiece", "small"), ("small", "bpe")]


@pytest.mark.parametrize(
    "text", [long_text(1), MIXED * 6, "x" * 3000, "é漢🐻" * 300], ids=["english", "mixed", "x", "wide"]
)
@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_pieces_fit_and_lose_nothing(tokenizers: dict[str, Any], student: str, teacher: str | None, text: str) -> None:
    students = encoder(tokenizers, student, 48)
    teachers = encoder(tokenizers, teacher, 64) if teacher else None
    builder = ExampleBuilder(students, teachers, align=True, seed=3)
    built = list(builder.build(documents(text), 10_000))
    assert len(built) > 5
    assert builder.notes.inexact == builder.notes.too_short == 0
    for example in built:
        # Specials included, so that the model reads no more than it may.
        assert len(example.student_ids) <= 48
        assert len(example.teacher_ids) <= 64
        for side, ids in ((students, example.student_ids), (teachers or students, example.teacher_ids)):
            encoding = side.encode([example.text])[0]
            assert encoding is not None
            assert ids == side.with_specials(encoding.ids, example.ends_text)
        assert (example.rows is not None) is (teacher is not None)
    assert_whole(text, built)
    assert [example.ends_text for example in built].count(True) == 1


def test_pieces_are_long_where_they_can_be(tokenizers: dict[str, Any]) -> None:
    students = encoder(tokenizers, "bpe", 48)
    built = list(ExampleBuilder(students, None, align=False, seed=3).build(documents(long_text(2)), 10_000))
    lengths = sorted(example.student_tokens for example in built)
    assert lengths[1] > students.limit // 2
    assert np.mean(lengths) > 0.85 * students.limit
    # English is cut between words.
    words = set(long_text(2).split())
    assert all(word in words for example in built for word in example.text.split())


SCRIPTS = {
    "thai": "ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอนน้ำกำลัง" * 20,
    "hangul": "한국어는교착어이다" * 30,
    "hindi": "संस्कृतम् क्षत्रिय विद्यार्थी प्रार्थना " * 20,
    "bengali": "বাংলাভাষাক্ষেত্রেস্বাধীন" * 20,
    "arabic": "بِسْمِ ٱللَّهِ ٱلرَّحْمَٰنِ " * 20,
    "decomposed": "e\u0301a\u0302\u0323o\u0308n\u0303" * 60,
    "joined emoji": "👩\u200d👩\u200d👧\u200d👦🏳\ufe0f\u200d🌈" * 20,
    "coloured emoji": "👍🏽👋🏿" * 40,
    "flags": "🇩🇪🇫🇷🇯🇵" * 30,
    "keycaps": "1\ufe0f\u20e32\ufe0f\u20e3" * 40,
    "CR LF": "ab\r\ncd ef\r\n\r\n" * 60,
    "marked spaces": " \u0301 \u0308x" * 60,
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_no_piece_begins_or_ends_inside_a_letter(
    tokenizers: dict[str, Any], student: str, teacher: str | None, script: str
) -> None:
    text = SCRIPTS[script]
    students = encoder(tokenizers, student, 64)
    teachers = encoder(tokenizers, teacher, 80) if teacher else None
    builder = ExampleBuilder(students, teachers, align=True, seed=3)
    built = list(builder.build(documents(text), 10_000))
    assert len(built) > 5
    assert_whole(text, built)
    clusters = regex.findall(r"\X", text)
    # As many letters in the pieces as in the text: none became two.
    whole = sum(not cluster.isspace() for cluster in clusters)
    pieces = [cluster for example in built for cluster in regex.findall(r"\X", example.text)]
    assert sum(not cluster.isspace() for cluster in pieces) == whole
    assert set(pieces) <= set(clusters)


def test_only_a_letter_that_alone_is_too_long_is_cut(tokenizers: dict[str, Any]) -> None:
    """Each of these stands before or after ordinary letters; 30 marks fit, 300 do not."""
    builder = ExampleBuilder(encoder(tokenizers, "bpe", 72), None, align=False, seed=3)
    fitting, too_long = "e" + "\u0301" * 30, "o" + "\u0302" * 300
    text = f"ab{fitting}cd{fitting}{fitting}" * 4 + too_long + "xy"
    built = list(builder.build(documents(text), 10_000))
    assert_whole(text, built)
    assert sum(example.text.count(fitting) for example in built) == 12
    assert sum(example.text.count("\u0302") for example in built) == 300


CODE = "\n".join(
    f"class Reader{number}(Base):\n    def read(self, source, limit={number}):\n        for line in source:\n"
    f"            if line and len(line) < limit:\n                self.found.append(line.strip())\n\n"
    f"\tdef close(self):\n\t\tself.source.close()\n"
    for number in range(40)
)


@pytest.mark.parametrize("max_length", [64, 200])
@pytest.mark.parametrize(("student", "teacher"), [*PAIRS, ("gpt", "sentencepiece")])
def test_pieces_of_code_begin_at_a_line_with_its_indentation(
    tokenizers: dict[str, Any], student: str, teacher: str | None, max_length: int
) -> None:
    # A vocabulary that has learnt code: its tokens hold line ends and indentation together.
    learnt = tokenizers | {"gpt": tiny_tokenizer(900)}
    teachers = encoder(learnt, teacher, max_length) if teacher else None
    builder = ExampleBuilder(encoder(learnt, student, max_length), teachers, align=True, seed=3)
    built = list(builder.build(documents(CODE), 10_000))
    assert len(built) > 10
    source = f"\n{CODE}\n"
    lines = [line for line in CODE.split("\n") if line.strip()]
    assert sorted(line for e in built for line in e.text.split("\n") if line.strip()) == sorted(lines)
    assert all(f"\n{example.text}\n" in source for example in built)
    if max_length == 64:
        assert sum(example.text.startswith((" ", "\t")) for example in built) > len(built) / 3


def test_prose_is_cut_at_sentences_where_one_is_near(tokenizers: dict[str, Any]) -> None:
    students = encoder(tokenizers, "bpe", 200)
    text = long_text(5, sentences=300)
    built = list(ExampleBuilder(students, None, align=False, seed=3).build(documents(text), 10_000))
    assert_whole(text, built)
    lengths = [example.student_tokens for example in built]
    assert np.mean(lengths) > 0.9 * students.limit
    assert np.mean([example.text.endswith(".") for example in built]) > 0.5


def test_white_space_between_pieces_is_all_that_is_lost(tokenizers: dict[str, Any]) -> None:
    """However long the white space is, and though an indentation is longer than a piece."""
    builder = ExampleBuilder(encoder(tokenizers, "bpe", 24), None, align=False, seed=3)
    text = f"one two{' ' * 500}three four\n{' ' * 500}five six\n\n\n{chr(10) * 300}  seven eight"
    built = list(builder.build(documents(text), 10_000))
    assert_whole(text, built)
    assert any(example.text.startswith("  seven") for example in built)


def test_texts_go_to_the_tokenizer_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_builder, "_CHARACTERS_AT_ONCE", 10)
    monkeypatch.setattr(example_builder, "_TEXTS_AT_ONCE", 3)
    texts = ["a" * size for size in (4, 4, 4, 30, 1, 1, 1, 1)]
    portions = [texts[portion] for portion in example_builder._portions(list(map(len, texts)))]
    assert [len(portion) for portion in portions] == [2, 1, 1, 3, 1]
    assert [text for portion in portions for text in portion] == texts


def test_cuts_are_where_both_have_a_boundary(tokenizers: dict[str, Any]) -> None:
    students, teachers = encoder(tokenizers, "bpe", 40), encoder(tokenizers, "sentencepiece", 40)
    # One word: there is no white space to cut at.
    text = without_space(long_text(3))
    built = list(ExampleBuilder(students, teachers, align=True, seed=3).build(documents(text), 10_000))
    assert_whole(text, built)
    encodings = [side.encode([text])[0] for side in (students, teachers)]
    shared = set.intersection(*(set(encoding.ends.tolist()) for encoding in encodings if encoding is not None))
    starts = sorted(text.encode().index(example.text.encode()) for example in built)
    assert len(starts) > 5
    assert set(starts[1:]) <= shared


def test_short_documents_stay_as_they_are(tokenizers: dict[str, Any]) -> None:
    texts = ["  Two words.\n", "\tindented\n    more\n", "é", "a"]
    builder = ExampleBuilder(encoder(tokenizers, "small", 48), None, align=False, seed=1)
    built = list(builder.build(documents(*texts), 100))
    assert [example.text for example in built] == texts[:3]
    assert builder.notes.too_short == 1
    assert all(example.ends_text for example in built)


@pytest.mark.parametrize("ends_text", [True, False])
@pytest.mark.parametrize("name", ["bpe", "small", "sentencepiece"])
def test_the_end_is_said_only_where_a_text_ends(tokenizers: dict[str, Any], name: str, ends_text: bool) -> None:
    students = encoder(tokenizers, name, 48)
    text = long_text(4)
    built = list(ExampleBuilder(students, None, align=False, seed=1).build(documents(text, ends_text=ends_text), 1000))
    assert students.end_id is not None
    for example in built:
        is_last = text.endswith(example.text)
        assert example.ends_text is (is_last and ends_text)
        assert (example.student_ids[-1] == students.end_id) is (is_last and ends_text)
        assert students.end_id not in example.student_ids[1:-1]
        assert example.student_ids[0] == students.start_id


@pytest.mark.parametrize("wanted", [1, 7, 30, 31, 100, 10_000])
def test_no_more_than_wanted_and_spread_over_the_documents(tokenizers: dict[str, Any], wanted: int) -> None:
    texts = [long_text(seed, sentences=12) for seed in range(30)]
    built = list(
        ExampleBuilder(encoder(tokenizers, "bpe", 48), None, align=False, seed=5).build(documents(*texts), wanted)
    )
    everything = 30 * 5
    assert len(built) == wanted if wanted <= everything else len(built) >= everything
    per_document = np.bincount([example.document for example in built], minlength=30)
    if wanted <= 30:
        assert per_document.max() == 1
    else:
        assert per_document.min() >= 1
    if wanted <= everything:
        assert per_document.max() - per_document.min() <= 1
    for example in built:
        assert example.text in texts[example.document]


def test_what_short_documents_lack_the_long_ones_give(tokenizers: dict[str, Any]) -> None:
    texts = [long_text(0, sentences=200), *("Short text." for _ in range(9))]
    built = list(ExampleBuilder(encoder(tokenizers, "bpe", 48), None, align=False, seed=5).build(documents(*texts), 50))
    assert len(built) == 50
    assert {example.document for example in built} == set(range(10))
    assert len({(example.document, example.text) for example in built}) == 50


def test_which_pieces_depends_on_the_seed_alone(tokenizers: dict[str, Any]) -> None:
    texts = documents(*(long_text(seed) for seed in range(4)))

    def chosen(seed: int) -> list[str]:
        builder = ExampleBuilder(encoder(tokenizers, "bpe", 48), None, align=False, seed=seed)
        return [example.text for example in builder.build(texts, 8)]

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


def test_a_line_of_200_kb_without_a_space(tokenizers: dict[str, Any]) -> None:
    text = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789é漢", k=180_000))
    assert len(text.encode()) > 190_000
    students, teachers = encoder(tokenizers, "bpe", 256), encoder(tokenizers, "sentencepiece", 512)
    builder = ExampleBuilder(students, teachers, align=True, seed=1)
    built = list(builder.build(documents(text), 100_000))
    assert builder.notes.inexact == 0
    assert max(len(example.student_ids) for example in built) <= 256
    assert sum(example.bytes for example in built) == len(text.encode())


def test_characters_longer_than_an_example_are_refused(tokenizers: dict[str, Any]) -> None:
    """Each of these is four tokens, and three fit."""
    students = encoder(tokenizers, "bpe", 5)
    assert students.limit == 3
    builder = ExampleBuilder(students, None, align=False, seed=1)
    assert [example.text for example in builder.build(documents("ok then"), 100)] != []
    with pytest.raises(UsageError, match="'🐻' alone takes more tokens") as caught:
        list(builder.build(documents("🐻🐻🐻 ok then 🐻🐻"), 100))
    assert "--max-length" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["bpe", "wide"])
def test_pieces_that_alone_are_too_long_are_halved(
    tokenizers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Without the space before it the first word of a piece takes more tokens than inside its document."""
    monkeypatch.setattr(example_builder, "_ROOM", 0)
    students = encoder(tokenizers | {"wide": tiny_tokenizer(900)}, name, 40)
    # Of every length, so that the last piece, which says the end, is among those that are halved.
    words = long_text(7, sentences=16).split(" ")
    texts = [" ".join(words[:count]) for count in range(12, 112) if len(words[count - 1]) > 5]
    built = list(ExampleBuilder(students, None, align=False, seed=1).build(documents(*texts), 10_000))
    halves = 0
    for number, text in enumerate(texts):
        own = [example for example in built if example.document == number]
        assert_whole(text, own)
        assert [example.text for example in own if example.ends_text] == [
            example.text for example in own if text.endswith(example.text)
        ]
        halves += sum(0.4 * students.limit < example.student_tokens < 0.65 * students.limit for example in own)
        # What is left of the document may be a stub; halves are none.
        assert sum(example.student_tokens < students.limit // 3 for example in own) <= 1
    assert max(len(example.student_ids) for example in built) <= 40
    assert halves > 10


def test_unspellable_texts_are_counted(tokenizers: dict[str, Any]) -> None:
    builder = ExampleBuilder(encoder(tokenizers, "bpe", 48), None, align=False, seed=1)
    built = list(builder.build(documents("A lone \ud800 surrogate.", "A text like others."), 10))
    assert [example.text for example in built] == ["A text like others."]
    assert builder.notes.inexact == 1


def test_the_context_of_the_model_is_a_limit_too(tokenizers: dict[str, Any]) -> None:
    students = encoder(tokenizers, "bpe", 256, context=32)
    built = list(ExampleBuilder(students, None, align=False, seed=1).build(documents(long_text(1)), 1000))
    assert max(len(example.student_ids) for example in built) <= 32


def test_saved_examples_come_back(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    students, teachers = encoder(tokenizers, "bpe", 48), encoder(tokenizers, "sentencepiece", 64)
    for name, teacher in (("aligned", teachers), ("same", None)):
        built = list(ExampleBuilder(students, teacher, align=True, seed=1).build(documents(MIXED * 3), 1000))
        save_examples(built, tmp_path / name)
        loaded = load_examples(tmp_path / name).to_list()
        assert [row["id"] for row in loaded] == list(range(len(built)))
        for row, example in zip(loaded, built, strict=True):
            for field in ("document", "text", "bytes", "ends_text", "student_ids", "teacher_ids", "student_tokens"):
                assert row[field] == getattr(example, field)
            rows = ([], []) if example.rows is None else (example.rows.student_rows, example.rows.teacher_rows)
            assert (row["student_rows"], row["teacher_rows"]) == (list(rows[0]), list(rows[1]))
