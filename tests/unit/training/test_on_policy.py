"""The parts of on-policy steps: which steps, the replay buffer, and what the student writes."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_models import tiny_model

from distillkit.data.samples import Sample
from distillkit.reports.step_lines import totals
from distillkit.training.on_policy_schedule import EvenShare
from distillkit.training.replay_buffer import ReplayBuffer
from distillkit.training.student_writing import Draws, write_texts

CPU = torch.device("cpu")
EVERY = torch.ones(40, dtype=torch.bool)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.7, 1.0])
def test_a_share_is_kept_and_spread(share: float) -> None:
    even = EvenShare(share)
    chosen = [number for number in range(1000) if even.has(number)]
    assert even.count(1000) == len(chosen) == pytest.approx(1000 * share, abs=1)
    gaps = {second - first for first, second in itertools.pairwise(chosen)}
    assert len(gaps) <= 2
    assert max(gaps, default=1) - min(gaps, default=1) <= 1
    for numbers in (1, 7, 64):
        assert even.count(numbers) == sum(number < numbers for number in chosen)


def sample(number: int, length: int = 2) -> Sample:
    return Sample(number, (1, 2), tuple(range(length)), number % 2 == 0)


def test_the_buffer_keeps_the_newest_and_comes_back() -> None:
    buffer = ReplayBuffer(4)
    buffer.add(sample(number, 7 - number) for number in range(6))
    assert len(buffer) == 4
    drawn = buffer.draw(4, seed=5)
    assert {one.text for one in drawn} == {2, 3, 4, 5}
    assert [len(one.written) for one in drawn] == [2, 3, 4, 5]
    other = ReplayBuffer(4)
    other.restore(buffer.state())
    assert other.draw(2, seed=9) == buffer.draw(2, seed=9)
    other.add([sample(8)])
    assert {one.text for one in other.draw(4, seed=0)} == {3, 4, 5, 8}
    empty = ReplayBuffer(0)
    empty.add([sample(1)])
    assert len(empty) == 0


def write(model: torch.nn.Module, prompts: list[list[int]], room: list[int], draws: Draws, **settings: object):
    usual = {"may_write": EVERY, "endings": frozenset(), "temperature": 1.0, "device": CPU}
    return write_texts(model, prompts, room, draws=draws, **(usual | settings))  # type: ignore[arg-type]


def test_parts_of_a_step_are_written_as_the_whole() -> None:
    model = tiny_model("gpt2", 40, layers=1, hidden=16, seed=3)
    prompts, room = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 1]], [6, 9, 4, 8]
    whole = write(model, prompts, room, Draws(11, 0, 4))
    parts = [
        *write(model, prompts[:1], room[:1], Draws(11, 0, 4)),
        *write(model, prompts[1:], room[1:], Draws(11, 1, 4)),
    ]
    assert parts == whole
    assert [len(ids) for ids, _ in whole] == room
    assert write(model, prompts, room, Draws(12, 0, 4)) != whole


def test_only_what_may_be_written_is() -> None:
    model = tiny_model("gpt2", 48, layers=1, hidden=16, seed=3)
    allowed = EVERY.clone()
    allowed[::2] = False
    allowed[6] = True
    prompts = [[1, 2, 3]] * 16
    written = write(model, prompts, [30] * 16, Draws(1, 0, 16), may_write=allowed, endings=frozenset([6]))
    assert all(token % 2 and token < 40 for ids, _ in written for token in ids)
    # The ending is told and not among the tokens; what was not ended fills its room.
    assert 0 < sum(ended for _, ended in written) < 16
    assert all(ended or len(ids) == 30 for ids, ended in written)


def test_texts_are_drawn_from_the_student_at_the_temperature() -> None:
    model = tiny_model("gpt2", 40, layers=1, hidden=16, seed=3)
    with torch.no_grad():
        model.get_parameter("transformer.wte.weight").mul_(8)
        logits = model(torch.tensor([[1, 2, 3]])).logits[0, -1]
    texts = 3000
    for temperature in (1.0, 2.0):
        written = write(model, [[1, 2, 3]] * texts, [1] * texts, Draws(4, 0, texts), temperature=temperature)
        found = torch.bincount(torch.tensor([ids[0] for ids, _ in written]), minlength=40) / texts
        wanted = (logits / temperature).softmax(-1)
        assert 0.5 * float((found - wanted).abs().sum()) < 0.06
    # Near 0 it is what the plain forward pass finds likeliest, token by token.
    ((ids, _),) = write(model, [[1, 2, 3]], [5], Draws(4, 0, 1), temperature=1e-4)
    text = [1, 2, 3]
    for token in ids:
        with torch.no_grad():
            assert token == int(model(torch.tensor([text])).logits[0, -1].argmax())
        text.append(token)


def test_a_curve_is_of_one_loss() -> None:
    """The total of an on-policy step is another one; in lines over several steps, which have both, it is all there is."""
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 9.0, "on_policy_loss": 9.0}, {"step": 2, "eval": 1.0}]
    assert totals(lines) == [lines[0], lines[2]]
    assert totals(lines[1:]) == lines[1:]
