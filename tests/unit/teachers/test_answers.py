"""Black box on conversations: what the teacher is asked, and what the student reads of its answers."""

from __future__ import annotations

from chat_templates import CHATML, FAMILIES, Family, as_chat
from tiny_models import tiny_tokenizer

from distillkit.data.chat_template import ChatTemplate
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.text_encoder import make_text_encoder
from distillkit.teachers.answers import answer_rows, question_prompts
from distillkit.teachers.generated_file import Continuation


def reader(family: Family, longest: int = 80, size: int = 500) -> ConversationReader:
    encoder = make_text_encoder(as_chat(tiny_tokenizer(size), family), None, longest, needs_bytes=True)
    return ConversationReader(encoder, ChatTemplate.of(encoder, family.source, "model", "the model"))


TURNS = (Turn("user", "Who?"), Turn("assistant", "Ada."), Turn("user", "Where?"), Turn("assistant", "In the mill."))


def continuation(text: str, finish: str = "eos", *, index: int = 4, kept: bool = True) -> Continuation:
    return Continuation(index, text, 3, finish, kept, None)


def test_the_teacher_is_asked_what_the_last_answer_answers() -> None:
    teacher = reader(FAMILIES["llama3"], 200)
    examples = [
        {"id": 4, "text": Conversation(TURNS).canonical()},
        {"id": 5, "text": Conversation(TURNS[1:2]).canonical()},
    ]
    prompts = question_prompts(examples, teacher)
    assert [prompt.index for prompt in prompts] == [4]
    asked = teacher.encoder.tokenizer.decode(prompts[0].ids)
    assert asked.endswith("Where?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
    assert "In the mill" not in asked
    assert question_prompts(examples, reader(FAMILIES["llama3"], 12)) == []


def test_answers_are_targets_with_their_ends() -> None:
    teacher, student = reader(FAMILIES["llama3"], 200), reader(CHATML, 100)
    prompts = question_prompts([{"id": 4, "text": Conversation(TURNS).canonical()}], teacher)
    decode = student.encoder.tokenizer.decode

    def targets(*found: Continuation) -> list[str]:
        rows, _ = answer_rows(found, prompts, student)
        return [decode(row["student_ids"][begin:end]) for row in rows for begin, end in row["target_spans"]]

    assert targets(continuation("At home.")) == ["At home.<|im_end|>"]
    assert targets(continuation("At home", "length")) == ["At home"]
    assert targets(continuation("At home.", kept=False)) == []
    ((row,), dropped) = answer_rows([continuation("far away " * 100)], prompts, student)
    assert dropped == 0
    assert len(row["student_ids"]) == 100
    assert row["target_spans"][0][1] == 100
    assert student.template.end_id not in row["student_ids"][row["first_target"] :]
    assert answer_rows([continuation("x")], prompts, reader(CHATML, 20)) == ([], 1)
