"""Answers that end by themselves, against a loop that reads everything again for each token."""

from __future__ import annotations

import math
import random

import pytest
import torch
from chat_templates import CHATML, as_chat
from tiny_models import tiny_model, tiny_tokenizer
from torch import nn

from distillkit.data.chat_template import ChatTemplate
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.text_encoder import make_text_encoder
from distillkit.errors import DistillkitError, Interrupted
from distillkit.evaluation import stopping
from distillkit.evaluation.stopping import Answers, ask, held_out_questions, stopping_problem

CPU = torch.device("cpu")
COLUMNS, TOKENS = 61, 57
LIMIT = 12


def opinionated(family: str, seed: int) -> nn.Module:
    """A model whose next token depends on what it reads: random weights would repeat one."""
    model = tiny_model(family, COLUMNS, seed=seed, tie_word_embeddings=False)
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(4)
        model.get_output_embeddings().weight[TOKENS:] += 3  # What no token has is likelier than any token.
    return model


def naive(model: nn.Module, question: list[int], endings: set[int]) -> tuple[int, bool]:
    ids = list(question)
    for length in range(LIMIT):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1, :TOKENS].argmax())
        if token in endings:
            return length, True
        ids.append(token)
    return LIMIT, False


def make_questions(count: int = 21, seed: int = 0) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(TOKENS) for _ in range(generator.randint(2, 17))] for _ in range(count)]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_equals_a_greedy_loop(family: str) -> None:
    model, questions = opinionated(family, 3), make_questions()
    # Ending tokens that some answers meet, and others do not.
    endings = {5, 9, 17, 23, 41}
    expected = [naive(model, question, endings) for question in questions]
    stopped, tokens = sum(end for _, end in expected), sum(length for length, _ in expected)
    assert 0 < stopped < len(questions)
    assert len({length for length, _ in expected}) > 3
    model.train()
    found = ask(model, questions, endings, vocabulary=TOKENS, limit=LIMIT, device=CPU)
    assert found == Answers(len(questions), stopped, tokens, LIMIT)
    assert model.training
    assert found.record() == {
        "asked": 21, "stopped": stopped, "share": stopped / 21, "mean_tokens": tokens / 21, "limit": LIMIT,
    }  # fmt: skip


def test_a_slow_model_is_asked_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    model, questions = opinionated("gpt2", 3), make_questions()
    clock = [0.0]

    def tick(*_: object) -> None:
        clock[0] += 1.0

    model.register_forward_hook(tick)
    monkeypatch.setattr(stopping.time, "monotonic", lambda: clock[0])
    # Four answers take 12 s, so six more are asked, which take 12 s as well, then two.
    assert ask(model, questions, set(), vocabulary=TOKENS, limit=LIMIT, device=CPU, seconds=30).asked == 12
    assert ask(model, questions, set(), vocabulary=TOKENS, limit=LIMIT, device=CPU, seconds=1).asked == 4
    assert ask(model, questions, set(), vocabulary=TOKENS, limit=LIMIT, device=CPU, seconds=1e6).asked == 21


def test_a_signal_ends_it_between_two_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupt() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted(2)

    monkeypatch.setattr(stopping, "check_interrupted", interrupt)
    with pytest.raises(Interrupted):
        ask(opinionated("gpt2", 3), make_questions(), set(), vocabulary=TOKENS, limit=LIMIT, device=CPU)


def test_logits_that_are_no_numbers_are_an_error() -> None:
    model = opinionated("gpt2", 3)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(DistillkitError, match="not numbers"):
        ask(model, make_questions(), set(), vocabulary=TOKENS, limit=LIMIT, device=CPU)


def test_a_warning_needs_a_large_difference_that_is_no_chance() -> None:
    def record(asked: int, stopped: int) -> dict[str, object]:
        return Answers(asked, stopped, 10 * asked, 64).record()

    assert "the student ends 4 of 24 answers by itself within 64 tokens, the teacher 20 of 24" in stopping_problem(
        record(24, 20), record(24, 4)
    )
    assert stopping_problem(record(24, 20), record(24, 18)) == ""
    assert stopping_problem(record(4, 4), record(4, 3)) == ""
    assert stopping_problem(record(24, 4), record(24, 20)) == ""
    assert stopping_problem(record(24, 24), record(24, 24)) == ""
    assert stopping_problem(None, record(24, 0)) == ""


def reader(context: int | None) -> ConversationReader:
    tokenizer = as_chat(tiny_tokenizer(600), CHATML)
    encoder = make_text_encoder(tokenizer, context, 512, needs_bytes=False)
    return ConversationReader(encoder, ChatTemplate.of(encoder, CHATML.source, "model", "the student"))


def example(document: int, *turns: Turn) -> dict[str, object]:
    return {"document": document, "text": Conversation(turns).canonical()}


def test_what_is_asked_are_the_turns_before_the_last_answer() -> None:
    ours = reader(200)
    question, answer = Turn("user", "Where is it?"), Turn("assistant", "In the chest.")
    long = Turn("user", "Where is the map? " * 60)
    examples = [
        example(0, Turn("system", "Be brief."), question, answer, Turn("user", "Which?"), answer),
        example(0, question, answer),  # Another piece of the same document.
        example(1, long, answer),
        example(2, question, answer),
    ]
    found = held_out_questions(examples, ours, ours, 64)
    assert found.limit == 64
    first = [Turn("system", "Be brief."), question, answer, Turn("user", "Which?")]
    assert found.student == found.teacher == [ours.prompt_ids(first), ours.prompt_ids([question])]
    # A model of a small context takes a question away from both.
    roomy = held_out_questions(examples, ours, reader(None), 64)
    assert roomy.student == found.student
    assert held_out_questions(examples, reader(None), reader(None), 500).limit == stopping.LONGEST_ANSWER
    assert held_out_questions(examples, ours, reader(20), 64).limit == 10
    many = [example(number, question, answer) for number in range(40)]
    assert len(held_out_questions(many, ours, ours, 64).student) == stopping.QUESTIONS
