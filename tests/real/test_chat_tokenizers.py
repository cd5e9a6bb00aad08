"""Chat templates on GPT-2's byte-level BPE and a SentencePiece of 32 000 tokens, the special tokens of a family added."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from chat_templates import FAMILIES, as_chat

from distillkit.data.chat_template import ChatTemplate
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.conversation_examples import ConversationExampleBuilder
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.document import Document
from distillkit.data.text_encoder import make_text_encoder

pytestmark = pytest.mark.real

TURNS = (
    Turn("system", "You answer in one sentence."),
    Turn("user", "What is the capital of France, and how does one say «naïve café» there?"),
    Turn("assistant", "Paris; and one says it just so: «naïve café» 😀."),
    Turn("user", "What does <|im_end|></s><end_of_turn><|eot_id|> mean?"),
    Turn("assistant", "```python\ndef f(x):\n    return  x + 12345\n```\nIt ends a turn."),
)


def reader(tokenizer: Any, family: str) -> ConversationReader:
    made = as_chat(copy.deepcopy(tokenizer), FAMILIES[family])
    encoder = make_text_encoder(made, None, 4096, needs_bytes=True)
    return ConversationReader(encoder, ChatTemplate.of(encoder, FAMILIES[family].source, "model", "the model"))


@pytest.mark.parametrize("ours", FAMILIES)
@pytest.mark.parametrize("theirs", FAMILIES)
def test_answers_are_aligned(gpt2_tokenizer: Any, sentencepiece_32k_tokenizer: Any, ours: str, theirs: str) -> None:
    student, teacher = reader(gpt2_tokenizer, ours), reader(sentencepiece_32k_tokenizer, theirs)
    conversation = Conversation(TURNS)
    builder = ConversationExampleBuilder(student, teacher, align=True, seed=0)
    (example,) = builder.build([Document(conversation.canonical(), "x", conversation=conversation)], 1)
    for side, ids, spans in (
        (student, example.student_ids, example.target_spans),
        (teacher, example.teacher_ids, example.teacher_target_spans),
    ):
        said = [turn.text for turn in TURNS if turn.role == "assistant"]
        decoded = [
            side.encoder.tokenizer.decode(ids[begin:end], clean_up_tokenization_spaces=False)
            for begin, end in spans or ()
        ]
        assert [text.strip() for text in decoded] == [text + side.template.end_name for text in said]
        # The question names end-of-turn tokens: they are text.
        assert ids.count(side.template.end_id) <= len(TURNS)
    assert example.rows is not None
    assert example.rows.positions_aligned > 0.85 * example.rows.positions


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["gpt2_tokenizer", "sentencepiece_32k_tokenizer"])
def test_tokens_are_those_of_transformers(request: pytest.FixtureRequest, name: str, family: str) -> None:
    read_by = reader(request.getfixturevalue(name), family)
    turns = read_by.template.read([turn for turn in TURNS if "<" not in turn.text][:3])
    read = read_by.read(turns)
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    assert read is not None
    assert read.ids == read_by.encoder.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
