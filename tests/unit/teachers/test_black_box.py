"""What the student learns of the teacher's writing: the continuation, and its end only where the teacher ended it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unicodedata import normalize

import pytest
from tiny_models import TRAINING_SENTENCES, tiny_sentencepiece_tokenizer, tiny_tokenizer
from tokenizer_makers import split_byte_level
from tokenizers import normalizers

from distillkit.data.text_encoder import TextEncoder, make_text_encoder
from distillkit.teachers.black_box import LONGEST_PROMPT, continuation_rows, make_prompts
from distillkit.teachers.generated_file import Continuation, Prompt

CASES = [
    ("The quick brown fox", " jumps over the lazy dog."),
    ("The quick brown fo", "x jumps"),
    ("Naïve caf", "é: the words"),
    ("“Where is the map?”", "\n\nasked Ines."),
    ("The price rose from 1", "7 to 23"),
    ("Ends in a space ", "and goes on"),
    ("東京", "は夜の七時 🐻"),
    ("a", "b"),
]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("sentencepiece")
    return {
        "bpe": tiny_tokenizer(384),
        "bos": tiny_tokenizer(300, bos="<s>", eos="</s>"),
        "none": tiny_tokenizer(300, eos=None),
        "sentencepiece": tiny_sentencepiece_tokenizer(tmp_path_factory.mktemp("sentencepiece")),
    }


def encoder(tokenizers: dict[str, Any], name: str, max_length: int = 128) -> TextEncoder:
    return make_text_encoder(tokenizers[name], None, max_length, needs_bytes=True)


def prompt(text: str, index: int = 0) -> Prompt:
    return Prompt(index, text, [1], len(text.encode()))


def written(text: str, finish: str = "eos", index: int = 0, kept: bool = True) -> Continuation:
    return Continuation(index, text, 5, finish, kept, None if kept else "empty")


def spelled(encoder: TextEncoder, ids: list[int]) -> bytes:
    assert encoder.table is not None
    return b"".join(encoder.table.pieces[index] or b"" for index in ids)


@pytest.mark.parametrize("finish", ["eos", "length"])
@pytest.mark.parametrize(("beginning", "continuation"), CASES)
@pytest.mark.parametrize("name", ["bpe", "bos", "none", "sentencepiece"])
def test_targets_are_the_tokens_that_spell_the_continuation(
    tokenizers: dict[str, Any], name: str, beginning: str, continuation: str, finish: str
) -> None:
    student = encoder(tokenizers, name)
    rows, dropped = continuation_rows([written(continuation, finish)], [prompt(beginning)], student)
    assert dropped == 0
    (example,) = rows
    ids, first = example["student_ids"], example["first_target"]
    assert example["teacher_text"] is True
    assert spelled(student, ids).removeprefix(b" ") in (
        (beginning + continuation).encode(), (beginning + continuation).encode().removeprefix(b" "),
    )  # fmt: skip
    # From the first target on everything spells the continuation, save for what its first token has of the prompt.
    before, targets = spelled(student, ids[:first]), spelled(student, ids[first:])
    assert targets.endswith(continuation.encode())
    first_token = spelled(student, [ids[first]])
    assert len(targets) - len(continuation.encode()) < len(first_token)
    assert before.removeprefix(b" ") in (beginning.encode(), beginning.encode()[: len(before.removeprefix(b" "))])
    ended = student.end_id is not None and ids[-1] == student.end_id and len(ids) > 1
    assert ended is (finish == "eos" and student.end_id is not None)
    assert (ids[0] == student.start_id) is (student.start_id is not None)


def test_cut_to_the_students_length(tokenizers: dict[str, Any]) -> None:
    student = encoder(tokenizers, "bpe", 20)
    (row,), _ = continuation_rows([written(" and on" * 40, "eos")], [prompt("On")], student)
    ids = row["student_ids"]
    # The text goes on behind the cut, so its end is not said.
    assert len(ids) == student.limit + 1
    assert ids[-1] != student.end_id
    assert spelled(student, ids[1:]) == ("On" + " and on" * 40).encode()[: len(spelled(student, ids[1:]))]


def test_nothing_is_left_of_a_continuation_beyond_the_length(tokenizers: dict[str, Any]) -> None:
    student = encoder(tokenizers, "bpe", 20)
    rows, dropped = continuation_rows([written(" the end", "eos")], [prompt("word " * 40)], student)
    assert rows == []
    assert dropped == 1


def test_only_kept_texts_are_taken_each_with_its_own_prompt(tokenizers: dict[str, Any]) -> None:
    student = encoder(tokenizers, "bpe")
    prompts = [prompt(f"Prompt {index}", index) for index in (9, 4, 7)]
    texts = [written(f" text {index}", "eos", index, kept=index != 4) for index in (4, 7, 9)]
    texts.append(written(" \ud800", "eos", 7))
    rows, dropped = continuation_rows(texts, prompts, student)
    assert [row["id"] for row in rows] == [7, 9]
    assert [spelled(student, row["student_ids"]) for row in rows] == [
        b"Prompt 7 text 7", b"Prompt 9 text 9",
    ]  # fmt: skip
    assert dropped == 1


@pytest.mark.parametrize("name", ["bpe", "bos", "none", "sentencepiece"])
def test_prompts_are_the_beginnings_of_the_texts(tokenizers: dict[str, Any], name: str) -> None:
    teacher = encoder(tokenizers, name, 256)
    texts = [" ".join(TRAINING_SENTENCES), "é漢🐻" * 60, "It is short.", "a"]
    prompts = make_prompts([{"id": 10 + index, "text": text} for index, text in enumerate(texts)], teacher, seed=1)
    assert [item.index for item in prompts] == ([10, 11, 12, 13] if name == "sentencepiece" else [10, 11, 12])[
        : len(prompts)
    ]
    assert len(prompts) >= 3
    for item in prompts:
        text = texts[item.index - 10]
        assert text.startswith(item.text)
        assert 0 < len(item.text) < len(text)
        assert item.bytes == len(item.text.encode())
        encoding = teacher.encode([text])[0]
        assert encoding is not None
        content = list(item.ids) if teacher.start_id is None else list(item.ids)[1:]
        assert content == encoding.ids[: len(content)]
        assert spelled(teacher, content).removeprefix(b" ") == item.text.encode().removeprefix(b" ")
        assert len(content) <= LONGEST_PROMPT + 3
        assert (item.ids[0] == teacher.start_id) is (teacher.start_id is not None)


def test_a_prompt_depends_on_its_text_and_the_seed_alone(tokenizers: dict[str, Any]) -> None:
    teacher = encoder(tokenizers, "bpe", 400)
    rows = [{"id": index, "text": " ".join(TRAINING_SENTENCES[index:])} for index in range(4)]
    prompts = make_prompts(rows, teacher, seed=1)
    assert make_prompts(rows[2:], teacher, seed=1) == prompts[2:]
    assert make_prompts(rows, teacher, seed=2) != prompts


@pytest.mark.parametrize("name", ["bpe", "sentencepiece"])
@pytest.mark.parametrize("cluster", ["e\u0301", "👩\u200d👩\u200d👧", "🇸🇪", "क्षि", "\r\n", "각"])
def test_prompts_end_between_the_characters_that_a_reader_sees(
    tokenizers: dict[str, Any], name: str, cluster: str
) -> None:
    teacher = encoder(tokenizers, name, 1024)
    rows = [{"id": index, "text": "x" * index + cluster * 40} for index in range(1, 30)]
    prompts = make_prompts(rows, teacher, seed=1)
    assert len(prompts) == len(rows)
    for item in prompts:
        rest = item.text.removeprefix("x" * item.index)
        assert rest == cluster * (len(rest) // len(cluster))


def test_a_prompt_is_never_longer_than_the_teacher_reads(tokenizers: dict[str, Any]) -> None:
    teacher = encoder(tokenizers, "bpe", 32)
    rows = [{"id": 0, "text": "x" + "e" + "\u0301" * 60 + " and so on"}, {"id": 1, "text": "plain text " * 20}]
    (prompt,) = make_prompts(rows, teacher, seed=1)
    assert prompt.index == 1


def test_tokens_that_share_a_character_are_not_parted() -> None:
    tokenizer = split_byte_level(normalizer=normalizers.NFC())
    teacher = replace(encoder({"nfc": tokenizer}, "nfc", 512), exact=False)
    # One character to a reader and to NFC; two tokens, which both stand for all of it.
    rows = [{"id": index, "text": "x" * index + "E\u0309" * 60} for index in range(1, 20)]
    for item in make_prompts(rows, teacher, seed=1):
        assert tokenizer.decode(item.ids, skip_special_tokens=True) == normalize("NFC", item.text)
