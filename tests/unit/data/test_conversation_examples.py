"""Conversations that are longer than an example: no answer is lost silently, and what is cut is counted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from chat_templates import CHATML, FAMILIES, as_chat
from tiny_models import make_paragraph, tiny_tokenizer

from distillkit.data.chat_template import ChatTemplate
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.conversation_examples import ConversationExampleBuilder
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.document import Document
from distillkit.data.examples import Example, load_examples, save_examples
from distillkit.data.text_encoder import make_text_encoder
from distillkit.data.training_rows import true_rows, tuning_rows, white_box_rows

SYSTEM = Turn("system", "Be brief.")


def reader(longest: int, family: Any = CHATML, size: int = 500) -> ConversationReader:
    tokenizer = as_chat(tiny_tokenizer(size), family)
    encoder = make_text_encoder(tokenizer, None, longest, needs_bytes=True)
    return ConversationReader(encoder, ChatTemplate.of(encoder, family.source, "model", "the student"))


def documents(*conversations: Sequence[Turn]) -> list[Document]:
    made = [Conversation(tuple(turns)) for turns in conversations]
    return [Document(item.canonical(), str(number), conversation=item) for number, item in enumerate(made)]


def built(builder: ConversationExampleBuilder, *conversations: Sequence[Turn], wanted: int = 100) -> list[Example]:
    return list(builder.build(documents(*conversations), wanted))


def answers(examples: Sequence[Example]) -> list[str]:
    turns = [turn for example in examples for turn in Conversation.from_canonical(example.text).turns]
    return sorted(turn.text for turn in turns if turn.role == "assistant")


def exchanges(count: int, seed: int = 0) -> list[Turn]:
    generator = random.Random(seed)
    return [Turn(role, make_paragraph(generator, 1)) for _ in range(count) for role in ("user", "assistant")]


@pytest.mark.parametrize("other", [None, FAMILIES["llama3"]])
def test_a_long_conversation_is_cut_between_turns_and_every_answer_stays(other: Any) -> None:
    student = reader(150)
    teacher = None if other is None else reader(300, other, 300)
    builder = ConversationExampleBuilder(student, teacher, align=teacher is not None, seed=1)
    turns = [SYSTEM, *exchanges(12)]
    found = built(builder, turns)
    assert answers(found) == sorted(turn.text for turn in turns if turn.role == "assistant")
    assert len(found) > 1
    for example in found:
        piece = Conversation.from_canonical(example.text).turns
        assert piece[0] == SYSTEM
        assert [turn.role for turn in piece[1:3]] == ["user", "assistant"]
        assert len(example.student_ids) <= 150
        assert len(example.teacher_ids) <= (150 if other is None else 300)
    assert builder.notes.record() == {"refused": 0, "parted": 1, "shortened": 0, "cut_answers": 0, "unpaired": 0}
    assert "cut between turns" in builder.notes.lines()[0]
    few = built(ConversationExampleBuilder(student, teacher, align=False, seed=1), turns, turns[:3], wanted=2)
    assert [example.document for example in few] == [0, 1]


def test_a_question_that_is_too_long_is_cut_from_its_left() -> None:
    builder = ConversationExampleBuilder(reader(100), None, align=False, seed=1)
    question = make_paragraph(random.Random(1), 40)
    (example,) = built(builder, [SYSTEM, Turn("user", question), Turn("assistant", "It is so.")])
    turns = Conversation.from_canonical(example.text).turns
    assert turns[0] == SYSTEM
    assert turns[2] == Turn("assistant", "It is so.")
    assert question.endswith(f" {turns[1].text}")
    assert 90 < len(example.student_ids) <= 100
    assert builder.notes.record()["shortened"] == 1
    assert example.ends_text


def test_an_answer_that_is_too_long_has_no_end_of_turn() -> None:
    read_by = reader(100)
    builder = ConversationExampleBuilder(read_by, None, align=False, seed=1)
    answer, question = make_paragraph(random.Random(2), 40), make_paragraph(random.Random(1), 40)
    (example,) = built(builder, [SYSTEM, Turn("user", question), Turn("assistant", answer)])
    turns = Conversation.from_canonical(example.text).turns
    assert [turn.role for turn in turns] == ["user", "assistant"]
    assert answer.startswith(turns[1].text)
    assert question.endswith(turns[0].text)
    ((begin, end),) = example.target_spans or ()
    assert end == len(example.student_ids)
    assert 85 < end <= 100
    assert read_by.encoder.tokenizer.decode(example.student_ids[begin:end]) == turns[1].text
    assert not example.ends_text
    assert builder.notes.record()["cut_answers"] == 1


def test_turns_of_one_role_in_a_row_are_joined_where_the_template_demands_it() -> None:
    twice = [Turn("user", "a"), Turn("user", "b"), Turn("assistant", "c")]
    for family, texts in ((FAMILIES["gemma"], ["a\n\nb", "c"]), (CHATML, ["a", "b", "c"])):
        builder = ConversationExampleBuilder(reader(200, family), None, align=False, seed=1)
        (example,) = built(builder, twice)
        assert [turn.text for turn in Conversation.from_canonical(example.text).turns] == texts
    builder = ConversationExampleBuilder(reader(200, FAMILIES["gemma"]), None, align=False, seed=1)
    assert built(builder, [Turn("assistant", "c")]) == []
    assert (
        "dropped: a chat template cannot render it (Conversation roles must alternate"
        in builder.notes.dropped_lines()[0]
    )


def test_rows_hold_the_targets_of_both(tmp_path: Any) -> None:
    student, teacher = reader(150), reader(300, FAMILIES["llama3"], 300)
    builder = ConversationExampleBuilder(student, teacher, align=True, seed=1)
    found = built(
        builder,
        [SYSTEM, *exchanges(2)],
        [Turn("user", "a"), Turn("assistant", ""), Turn("user", "b"), Turn("assistant", "c")],
    )
    save_examples(found, tmp_path / "train")
    stored = load_examples(tmp_path / "train")
    white = white_box_rows(stored, first_target=1, identical=False)
    for row, example in zip(white, found, strict=True):
        assert [tuple(span) for span in row["target_spans"]] == example.target_spans
    assert [row["target_spans"] for row in true_rows(stored, first_target=1)] == [row["target_spans"] for row in white]
    tuned = tuning_rows(white, first_target=1)
    assert [row["target_spans"] for row in tuned] == [row["teacher_target_spans"] for row in white]
    identical = white_box_rows(
        stored.remove_columns("teacher_ids").add_column("teacher_ids", stored["student_ids"][:]),
        first_target=1,
        identical=True,
    )
    for row in identical:
        assert row["student_rows"] == [place - 1 for begin, end in row["target_spans"] for place in range(begin, end)]


def test_all_turns_may_be_trained_on() -> None:
    read_by = reader(200)
    builder = ConversationExampleBuilder(read_by, None, align=False, seed=1, train_on="all")
    (example,) = built(
        builder, [SYSTEM, Turn("user", "Why is it?"), Turn("assistant", "So be it."), Turn("user", "left out")]
    )
    assert example.target_spans == [(1, len(example.student_ids))]
    decode = read_by.encoder.tokenizer.decode
    assert [decode(example.student_ids[begin:end]) for begin, end in example.student_scored or ()] == [
        "Be brief.",
        "Why is it?",
        "So be it.",
    ]
    assert example.bytes == len("Be brief.Why is it?So be it.")
