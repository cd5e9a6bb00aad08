"""Tokenizers that change texts: what they read in place of a text is found, and nothing else is changed."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from tokenizer_makers import byte_level, sentencepiece_like, unigram, word_piece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distillkit.alignment.encoding import encode_batch, encode_loosely
from distillkit.alignment.normalising import first_unreadable, kind_of_change, normalised, reading_of
from distillkit.alignment.token_bytes import token_bytes

DECOMPOSED = unicodedata.normalize("NFD", "Tiếng Việt, café, Å")


def with_normaliser(tokenizer: Any, *steps: Any) -> Any:
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(list(steps))
    return tokenizer


def t5_like() -> PreTrainedTokenizerFast:
    """Splits at white space, as T5 does: every run of it is one space, and edges are lost."""
    letters = sorted({*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,.é"})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0), ("▁the", -2.0)]
    backend = Tokenizer(models.Unigram([*pieces, *((letter, -5.0) for letter in letters)], unk_id=2))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def read(text: str, *tokenizers: Any) -> str | None:
    (found,) = normalised([text], [reading_of(tokenizer, token_bytes(tokenizer)) for tokenizer in tokenizers])
    if found is not None:  # Every tokenizer spells it.
        assert all(encode_batch(one, token_bytes(one), [found])[0] is not None for one in tokenizers)
    return found


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_unicode_forms(form: str) -> None:
    tokenizer = with_normaliser(byte_level(), getattr(normalizers, form)())
    text = DECOMPOSED + " ﬁn ①"
    expected = unicodedata.normalize(form, text)  # type: ignore[arg-type]
    assert read(text, tokenizer) == expected
    assert kind_of_change(text, expected) in (form, "NFC", "NFD")
    assert read("plain", tokenizer) == "plain"


def test_white_space_is_folded_as_the_tokenizer_does() -> None:
    assert read("the cat\n\n the\tdog ", t5_like()) == "the cat the dog"
    assert kind_of_change("a\nb", "a b") == "white space folded"
    assert kind_of_change("e\u0301\nb", "é b") == "NFC, white space folded"
    assert kind_of_change("aX", "a") == "its own rules"


def test_double_spaces_that_a_tokenizer_removes() -> None:
    tokenizer = sentencepiece_like()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    assert read("the  cat   sat\n x", tokenizer) == "the cat sat\n x"
    stripping = with_normaliser(byte_level(), normalizers.Strip())
    assert read(" the cat\n", stripping) == "the cat"


def test_two_tokenizers_agree_on_one_text() -> None:
    composing = with_normaliser(byte_level(), normalizers.NFC())
    text = DECOMPOSED.replace("ế", "e").replace("ệ", "e") + "\nthe ﬁle"
    letters = unicodedata.normalize("NFKC", text)
    only_known = "".join(
        c if c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,.é \n" else "x" for c in letters
    )
    decomposed = unicodedata.normalize("NFD", only_known)
    assert read(decomposed, composing, t5_like()) == " ".join(only_known.split())
    # One composes and the other decomposes: there is no text that both read as it is.
    apart = with_normaliser(byte_level(), normalizers.NFD())
    assert read("é", composing, apart) is None


def test_what_cannot_be_read_is_named() -> None:
    tokenizer = t5_like()
    table = token_bytes(tokenizer)
    assert read("the {cat}", tokenizer) is None
    reading = reading_of(tokenizer, table)
    assert first_unreadable("the {cat}", reading) == "U+007B LEFT CURLY BRACKET"
    # Where no bytes are needed, the token for unknown characters may stand there, and nothing else is lost.
    (loose,) = encode_loosely(tokenizer, table, ["the {cat}\n"])
    assert loose is not None
    assert loose.ids == tokenizer("the {cat}\n", add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id in loose.ids
    assert loose.ends[-1] == len("the {cat}\n")
    assert read("a\ud800", tokenizer) is None
    assert read("the</s>", unigram()) is None
    assert read("日 本", word_piece()) is None
