"""A partner in a conversation: what it reads, what it remembers, what it leaves out when its context is full."""

from __future__ import annotations

import io
import json

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from distillkit.chatting.partner import ChatPartner
from distillkit.cli.chat import Chat
from distillkit.console import Console, sanitize
from distillkit.data.chat_template import PLAIN, ChatTemplate
from distillkit.data.conversation import Turn
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.text_encoder import make_text_encoder
from distillkit.device.precision import Compute
from distillkit.errors import UsageError
from distillkit.models.answering import AnswerSettings

CONTEXT = 96


@pytest.fixture
def partner() -> ChatPartner:
    tokenizer = tiny_tokenizer(bos="<s>", eos="</s>")
    model = tiny_model("llama", len(tokenizer), seed=3, context=CONTEXT, eos_token_id=tokenizer.eos_token_id)
    encoder = make_text_encoder(tokenizer, CONTEXT, CONTEXT, needs_bytes=True)
    template = ChatTemplate.of(encoder, PLAIN, "plain", "the student")
    compute = Compute(torch.device("cpu"), None, torch.float32)
    settings = AnswerSettings(temperature=1.0, top_p=1.0, longest=12)
    return ChatPartner("the student", model, ConversationReader(encoder, template), compute, settings, seed=5)


def test_an_answer_is_what_the_model_writes_after_the_rendered_turns(partner: ChatPartner) -> None:
    tokenizer = partner.reader.encoder.tokenizer
    partner.settings = AnswerSettings(0.0, 1.0, 8)
    said = []
    for question in ("Where is it?", "And now?"):
        rendered = tokenizer.bos_token + "".join(said) + f"### User:\n{question}\n\n### Assistant:\n"
        ids = tokenizer.encode(rendered, add_special_tokens=False)
        with torch.no_grad():
            output = partner.model.generate(
                input_ids=torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=0
            )
        expected = tokenizer.decode(output[0][len(ids) :], skip_special_tokens=True)
        answer, left_out = partner.answer(question, lambda piece: None)
        assert (answer.text, left_out) == (expected, 0)
        said.append(f"### User:\n{question}\n\n### Assistant:\n{answer.text}{tokenizer.eos_token}\n\n")


def test_reset_forgets_the_turns_and_draws_again(partner: ChatPartner) -> None:
    first, _ = partner.answer("Where is it?", lambda piece: None)
    second, _ = partner.answer("Where is it?", lambda piece: None)
    partner.reset()
    again, _ = partner.answer("Where is it?", lambda piece: None)
    assert again.text == first.text != second.text


def test_the_oldest_turns_go_and_the_system_stays(partner: ChatPartner) -> None:
    partner.system = "Be brief."
    partner.reset()
    left_out = 0
    for number in range(4):
        _, left_out = partner.answer(f"Is it {number} o'clock now?", lambda piece: None)
    assert left_out > 0
    assert left_out % 2 == 0  # Question and answer go together.
    asked, read = [], partner.reader.prompt_ids
    partner.reader.prompt_ids = lambda turns: asked.append(list(turns)) or read(turns)  # type: ignore[method-assign]
    partner.answer("And now?", lambda piece: None)
    assert asked[-1][0] == Turn("system", "Be brief.")
    assert asked[-1][1].role == "user"
    assert asked[-1][-1] == Turn("user", "And now?")


def test_a_question_beyond_the_context_is_refused_and_forgotten(partner: ChatPartner) -> None:
    before = list(partner.turns)
    with pytest.raises(UsageError, match="does not fit into the model's context of 96 tokens"):
        partner.answer("word " * 200, lambda piece: None)
    assert partner.turns == before


def _talk(partner: ChatPartner, text: str, *, json_lines: bool = False) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    Chat(partner, Console(out=out, err=err), json_lines).talk(io.StringIO(text))
    return out.getvalue(), err.getvalue()


def test_a_pipe_is_answered_line_by_line(partner: ChatPartner) -> None:
    expected = [partner.answer(question, lambda piece: None)[0].text for question in ("Where?", "When?")]
    partner.reset()
    out, _ = _talk(partner, "Where?\n\nWhen?\n/quit\nWhy?\n")
    assert out == "".join(f"{sanitize(text)}\n" for text in expected)


def test_reset_in_a_pipe_begins_anew(partner: ChatPartner) -> None:
    out, err = _talk(partner, "Where?\n/reset\nWhere?\n", json_lines=True)
    first, second = map(json.loads, out.splitlines())
    assert first | {"seconds": 0} == second | {"seconds": 0}
    assert first["question"] == "Where?"
    assert "a new conversation" in err
