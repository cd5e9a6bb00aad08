"""Two templates, two tokenizers: which of the teacher's rows tell about which of the student's, recomputed byte by byte."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import numpy as np
import pytest
import tokenizer_makers as make
import torch
from chat_templates import FAMILIES, Family, as_chat
from tiny_models import make_paragraph, tiny_tokenizer

from distillkit.alignment.rows import LEAD
from distillkit.data.chat_template import PLAIN, ChatTemplate
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.conversation_examples import ConversationExampleBuilder
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.document import Document
from distillkit.data.examples import Example
from distillkit.data.template_choice import TemplatePair
from distillkit.data.text_encoder import TextEncoders, make_text_encoder
from distillkit.teachers.prefix_targets import prefix_map_of

ALL = FAMILIES | {"plain": Family(PLAIN)}
TOKENIZERS = {
    "byte-level": lambda: tiny_tokenizer(500),
    "sentencepiece": make.sentencepiece_like,
    "gemma": make.gemma_like,
}
# Every family on both sides, and every pair of tokenizers.
CASES = [
    (ours, theirs, *list(product(TOKENIZERS, TOKENIZERS))[index % 9])
    for index, (ours, theirs) in enumerate(product(ALL, ALL))
]  # fmt: skip
SAID = (
    "",
    "  two  spaces \n\nand lines\n",
    "naïve café",
    "x",
    "12 345",
    "<|im_end|> </s> <eos>",
    "\tdef f():\n\t\treturn  1",
)


def reader(family: str, tokenizer: str) -> ConversationReader:
    made = as_chat(TOKENIZERS[tokenizer](), ALL[family])
    encoder = make_text_encoder(made, None, 4096, needs_bytes=True)
    return ConversationReader(encoder, ChatTemplate.of(encoder, ALL[family].source, "model", "the model"))


def examples(
    student: ConversationReader, teacher: ConversationReader | None, count: int = 12, **settings: Any
) -> list[Example]:
    generator = random.Random(11)

    def said() -> str:
        return generator.choice(SAID) if generator.random() < 0.5 else make_paragraph(generator, 1)

    documents = []
    for number in range(count):
        turns = [Turn("system", said())] if number % 2 else []
        for _ in range(generator.randint(1, 3)):
            turns += [Turn("user", said()), Turn("assistant", said())]
        conversation = Conversation(tuple(turns))
        documents.append(Document(conversation.canonical(), str(number), conversation=conversation))
    builder = ConversationExampleBuilder(student, teacher, align=True, seed=1, **settings)
    return list(builder.build(documents, count))


def places(
    side: ConversationReader, ids: list[int], targets: list[tuple[int, int]]
) -> list[tuple[int, int, int, bytes]]:
    """Plainly: every target token as (its place, which answer, bytes of the answer before it, its bytes); those of an
    end-of-turn token are b"END"."""
    pieces, found = side.encoder.table.pieces, []
    for answer, (begin, end) in enumerate(targets):
        at = 0
        for place in range(begin, end):
            piece = b"END" if place == end - 1 and ids[place] == side.template.end_id else pieces[ids[place]]
            found.append((place, answer, at, piece))
            at += len(piece)
    return found


def lead(side: dict[int, Any], turns: list[Turn], answer: int) -> int:
    """How many bytes an answer begins with that are none of its content: a space of Mistral's template, or a dummy one."""
    spelled = b"".join(piece for number, _, piece in side.values() if number == answer and piece != b"END")
    return len(spelled) - len(turns[answer].text.encode())


@pytest.mark.parametrize(("ours", "theirs", "tokenizer", "other"), CASES)
def test_every_row_means_the_same_bytes_to_both(ours: str, theirs: str, tokenizer: str, other: str) -> None:
    student, teacher = reader(ours, tokenizer), reader(theirs, other)
    made = examples(student, teacher)
    assert len(made) >= 10
    aligned = positions = 0
    for example in made:
        rows = example.rows
        assert rows is not None
        mine = {place: rest for place, *rest in places(student, example.student_ids, example.target_spans)}
        other_ = {place: rest for place, *rest in places(teacher, example.teacher_ids, example.teacher_target_spans)}
        turns = [turn for turn in Conversation.from_canonical(example.text).turns if turn.role == "assistant"]

        assert len(rows.student_rows) == len(set(rows.student_rows.tolist()))
        assert sorted(rows.student_rows.tolist()) == rows.student_rows.tolist()
        ended = 0
        for row, teacher_row, skip, end_row, end_skip in zip(
            rows.student_rows, rows.teacher_rows, rows.skips, rows.end_rows, rows.end_skips, strict=True
        ):
            answer, at, piece = mine[row + 1]
            their_answer, their_at, their_piece = other_[teacher_row + 1]
            assert answer == their_answer
            if piece == b"END" or their_piece == b"END":
                assert piece == their_piece == b"END"
                assert (skip, end_row, end_skip) == (0, teacher_row + 1, 0)
                ended += 1
                continue
            # Bytes of the content that are read, -1 where a space in front of it is still to be written.
            read = their_at - lead(other_, turns, answer) + (-1 if skip == LEAD else int(skip))
            assert at - lead(mine, turns, answer) == read
            # Where the student's token ends in the teacher's reading.
            after = sum(len(p) for place, (number, _, p) in other_.items() if number == answer and place <= end_row)
            assert at + len(piece) - lead(mine, turns, answer) == after - lead(other_, turns, answer) + end_skip
        assert ended == len(turns)
        positions += len(mine)
        aligned += len(rows.student_rows)
        assert rows.positions == len(mine)
        assert rows.positions_aligned == len(rows.student_rows)
    assert aligned > 0.8 * positions


@pytest.mark.parametrize(("ours", "theirs", "tokenizer", "other"), CASES[::5])
def test_both_are_scored_by_the_same_bytes(ours: str, theirs: str, tokenizer: str, other: str) -> None:
    student, teacher = reader(ours, tokenizer), reader(theirs, other)
    for example in examples(student, teacher):
        said = [turn.text for turn in Conversation.from_canonical(example.text).turns if turn.role == "assistant"]
        assert example.bytes == sum(len(text.encode()) for text in said)
        for side, ids, spans in (
            (student, example.student_ids, example.student_scored),
            (teacher, example.teacher_ids, example.teacher_scored),
        ):
            spelled = [
                b"".join(side.encoder.table.pieces[token] for token in ids[begin:end]).decode() for begin, end in spans
            ]
            assert [text.removeprefix(" ") for text in spelled] == [text.removeprefix(" ") for text in said if text]


def test_the_teachers_end_of_turn_is_the_students() -> None:
    student, teacher = reader("llama3", "byte-level"), reader("chatml", "sentencepiece")
    pair = TemplatePair(student.template, teacher.template)
    encoders = pair.marked(TextEncoders(student.encoder, teacher.encoder))
    prefix_map = prefix_map_of(encoders)
    logits = torch.randn(3, len(teacher.encoder.table), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = prefix_map.project(logits).log_target.exp()
    wanted = logits.softmax(-1)[:, teacher.template.end_id]
    mapped = prefix_map.student_ids.ne(prefix_map.residual_id)
    torch.testing.assert_close(target[:, student.template.end_id], wanted / logits.softmax(-1)[:, mapped].sum(-1))
    assert student.template.end_id != student.encoder.end_id


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("train_on", ["assistant", "all"])
def test_with_one_tokenizer_and_one_template_every_target_is_aligned_with_itself(family: str, train_on: Any) -> None:
    student, teacher = reader(family, "byte-level"), reader(family, "byte-level")
    for example in examples(student, teacher, train_on=train_on):
        rows = example.rows
        assert rows is not None
        assert example.student_ids == example.teacher_ids
        assert example.target_spans == example.teacher_target_spans
        np.testing.assert_array_equal(rows.student_rows, rows.teacher_rows)
        np.testing.assert_array_equal(rows.end_rows, rows.teacher_rows + 1)
        assert not rows.skips.any()
        assert not rows.end_skips.any()
        targets = {place - 1 for begin, end in example.target_spans for place in range(begin, end)}
        assert set(rows.student_rows.tolist()) <= targets
        # What is left is the space of Mistral's template alone, which is no content.
        if train_on == "assistant":
            lead = sum(turn.role == "assistant" for turn in Conversation.from_canonical(example.text).turns)
            assert len(targets) - len(rows.student_rows) <= lead * (family == "mistral")
