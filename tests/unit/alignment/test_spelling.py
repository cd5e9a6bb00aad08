"""What tokens that a model has written say, by their bytes."""

from __future__ import annotations

import pytest
from tiny_models import tiny_tokenizer
from tokenizer_makers import slow_sentencepiece, word_piece

from distillkit.alignment.spelling import is_decoded_by_bytes, spelled_after
from distillkit.alignment.token_bytes import token_bytes


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    tokenizer = slow_sentencepiece(tmp_path_factory.mktemp("slow"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    return tokenizer


@pytest.mark.parametrize("text", ["the cat", " two  spaces ", "naïve 東京 🐻 fin", "a\n\nb"])
def test_a_text_alone_is_itself(tokenizer, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert spelled_after(token_bytes(tokenizer), [], ids, names=True) == text
    assert spelled_after(token_bytes(tokenizer), [tokenizer.bos_token_id], ids, names=True) == text


def test_names_of_special_tokens(tokenizer) -> None:
    text = "the cat<|im_end|>the dog"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    table = token_bytes(tokenizer)
    assert spelled_after(table, [], ids, names=True) == text
    assert spelled_after(table, [], ids, names=False) == "the catthe dog"


def test_bytes_of_half_a_character(tokenizer) -> None:
    ids = tokenizer("東", add_special_tokens=False)["input_ids"]
    assert spelled_after(token_bytes(tokenizer), [], ids[:-1], names=True) == "\ufffd"


def test_who_is_decoded_so(tokenizer) -> None:
    fast, words = tiny_tokenizer(300), word_piece()
    assert is_decoded_by_bytes(tokenizer, token_bytes(tokenizer))
    assert not is_decoded_by_bytes(tokenizer, None)
    assert not is_decoded_by_bytes(fast, token_bytes(fast))
    assert not is_decoded_by_bytes(words, token_bytes(words))
