"""Answers as they are written: the pieces are the text, endings end, the draws are those of the settings."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from distillkit.models.answering import AnswerSettings, TextPieces, write_answer

_TEXTS = (
    "Hello, world! How  are\n\nyou?",
    "naïve café — Ω≈ç√ 漢字かな交じり文 🙂👩\u200d👩\u200d👧 Привет",
    " leading space, trailing space ",
    "tabs\tand\r\nlines\n",
)


def _whole(tokenizer, prompt, new) -> str:
    """Everything decoded at once, which is what the pieces have to add up to."""
    both = tokenizer.decode([*prompt, *new], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return both[len(tokenizer.decode(prompt, skip_special_tokens=True, clean_up_tokenization_spaces=False)) :]


@pytest.mark.parametrize("name", ["gpt2_tokenizer", "sentencepiece_32k_tokenizer"])
@pytest.mark.parametrize("text", _TEXTS)
def test_pieces_add_up_to_the_text(name, text, request) -> None:
    tokenizer = request.getfixturevalue(name)
    prompt = tokenizer.encode("They said: so", add_special_tokens=False)
    new = tokenizer.encode("They said: so " + text, add_special_tokens=False)[len(prompt) :]
    pieces = TextPieces(tokenizer, prompt)
    found = [pieces.put(token) for token in new] + [pieces.rest()]
    assert "".join(found) == _whole(tokenizer, prompt, new)
    assert not any("\ufffd" in piece for piece in found)
    assert sum(map(bool, found)) > len(new) // 4  # Shown while it is written, not at the end.


def test_an_incomplete_character_is_never_shown(gpt2_tokenizer) -> None:
    new = gpt2_tokenizer.encode("a 🦩", add_special_tokens=False)
    assert len(new) > 2
    pieces = TextPieces(gpt2_tokenizer, gpt2_tokenizer.encode("x"))
    assert "".join([pieces.put(token) for token in new[:-1]] + [pieces.rest()]).strip() == "a"


@pytest.fixture(scope="module")
def talker():
    tokenizer = tiny_tokenizer()
    return tiny_model("llama", len(tokenizer), seed=3).eval(), tokenizer


def _naive(model, prompt, endings, longest) -> list[int]:
    """Greedy, the whole text through the model again for every token."""
    ids = list(prompt)
    for _ in range(longest):
        with torch.no_grad():
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in endings:
            break
        ids.append(token)
    return ids[len(prompt) :]


def test_a_greedy_answer_is_that_of_the_plain_forward_pass(talker) -> None:
    model, tokenizer = talker
    prompt = tokenizer.encode("the river", add_special_tokens=False)
    expected = _naive(model, prompt, set(), 12)
    shown: list[str] = []
    answer = write_answer(
        model, tokenizer, prompt, set(), AnswerSettings(0.0, 1.0, 12), device=torch.device("cpu"), show=shown.append
    )
    assert (answer.tokens, answer.finish) == (12, "length")
    assert answer.text == "".join(shown) == _whole(tokenizer, prompt, expected)


def test_the_first_ending_ends_it(talker) -> None:
    model, tokenizer = talker
    prompt = tokenizer.encode("the river", add_special_tokens=False)
    written = _naive(model, prompt, set(), 12)
    ending = written[5]
    expected = written[: written.index(ending)]
    answer = write_answer(model, tokenizer, prompt, {ending}, AnswerSettings(0.0, 1.0, 12), device=torch.device("cpu"))
    assert (answer.finish, answer.tokens) == ("end", len(expected))


def test_it_stops_when_asked_to_and_the_seed_decides(talker) -> None:
    model, tokenizer = talker
    prompt = tokenizer.encode("the river", add_special_tokens=False)
    asked = iter([False] * 4 + [True] * 100)
    settings, device = AnswerSettings(1.0, 1.0, 30), torch.device("cpu")
    answer = write_answer(model, tokenizer, prompt, set(), settings, device=device, stop=lambda: next(asked))
    assert (answer.finish, answer.tokens) == ("stopped", 4)
    drawn = [
        write_answer(
            model, tokenizer, prompt, set(), settings, device=device, generator=torch.Generator().manual_seed(seed)
        ).text
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("values", [(-1.0, 0.9, 5), (1.0, 0.0, 5), (1.0, 1.1, 5), (1.0, 0.9, 0)])
def test_settings_that_draw_nothing_are_refused(values) -> None:
    with pytest.raises(ValueError, match="temperature"):
        AnswerSettings(*values)


def test_an_ending_beyond_the_tokenizer_ends_it_too(talker) -> None:
    _, tokenizer = talker
    ending = len(tokenizer) + 3
    model = tiny_model("llama", ending + 1, seed=3, tie_word_embeddings=False).eval()
    prompt = tokenizer.encode("the river", add_special_tokens=False)
    with torch.no_grad():
        hidden = model.model(torch.tensor([prompt])).last_hidden_state[0, -1]
    model.lm_head.weight.data[ending] = 100 * hidden  # Of all tokens the likeliest, by far.
    settings, device = AnswerSettings(0.0, 1.0, 1), torch.device("cpu")
    assert write_answer(model, tokenizer, prompt, {ending}, settings, device=device).finish == "end"
    assert write_answer(model, tokenizer, prompt, set(), settings, device=device).finish == "length"
