"""Both tokenizers read a text, or it is said which of them cannot, and why."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from tokenizer_makers import byte_level, unigram
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distillkit.data.document import Document
from distillkit.data.example_builder import ExampleBuilder
from distillkit.data.read_texts import TextReader
from distillkit.data.text_encoder import TextEncoder, make_text_encoder

DECOMPOSED = unicodedata.normalize("NFD", "né à côté")


def encoder(tokenizer: Any, *, exact: bool = True, limit: int = 100) -> TextEncoder:
    return replace(make_text_encoder(tokenizer, None, limit, needs_bytes=True), exact=exact)


def composing() -> Any:
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def few_letters() -> PreTrainedTokenizerFast:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -3.0) for letter in "▁the cat")]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


def test_across_tokenizers_texts_are_read_as_both_normalise_them() -> None:
    reader = TextReader(encoder(byte_level()), encoder(composing()))
    texts = ["the cat", DECOMPOSED, "né"]
    found = reader.read(texts, whole=True)
    assert [item.text if item else None for item in found] == [
        "the cat",
        unicodedata.normalize("NFC", DECOMPOSED),
        "né",
    ]
    assert reader.problems.record() == {"teacher": {"NFC": 1}}
    assert reader.problems.lines(shared=False) == ["NFC: 1 text changed, as the teacher's tokenizer does"]
    for item in found:
        assert item is not None
        for tokenizer, encoding in ((byte_level(), item.student), (composing(), item.teacher)):
            assert encoding.ids == tokenizer(item.text, add_special_tokens=False)["input_ids"]
            assert encoding.ends[-1] == len(item.text.encode())


def test_what_is_dropped_names_tokenizer_character_and_count() -> None:
    reader = TextReader(encoder(few_letters()), encoder(byte_level()))
    assert reader.read(["the 🦊 cat", "the cat", "a fox"], whole=True)[0] is None
    assert reader.problems.dropped_lines(shared=False) == [
        "2 texts were dropped: the student's tokenizer cannot read them (first U+1F98A FOX FACE)"
    ]


@pytest.mark.parametrize("text", [DECOMPOSED, "the\u00a0cat", "ﬁne ①"])
def test_one_tokenizer_drops_nothing_for_its_spelling(text: str) -> None:
    tokenizer = composing()
    reader = TextReader(encoder(tokenizer, exact=False), None)
    (found,) = reader.read([text], whole=False)
    assert found is not None
    assert found.text == text
    assert found.student.ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert found.student.ends[-1] == len(text.encode())
    assert (found.student.ends[1:] >= found.student.ends[:-1]).all()


def test_unknown_characters_are_kept_and_said_where_no_bytes_are_needed() -> None:
    tokenizer = few_letters()
    reader = TextReader(encoder(tokenizer, exact=False), encoder(byte_level(), exact=False))
    (found,) = reader.read(["the 🦊 cat"], whole=False)
    assert found is not None
    assert tokenizer.unk_token_id in found.student.ids
    (line,) = reader.problems.lines(shared=False)
    assert "1 text has characters that the student's tokenizer does not know (first U+1F98A FOX FACE)" in line
    # The name of another special token is never the token.
    assert TextReader(encoder(unigram(), exact=False), None).read(["the</s>"], whole=True) == [None]


def test_a_token_that_is_only_named_the_unknown_one_is_no_unknown_character() -> None:
    """SmolLM2 names its end of text so, beside other tokens that begin and end; bytes are all known to it."""
    tokenizer = byte_level(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
    reader = TextReader(replace(encoder(tokenizer, exact=False), parse=True), None)
    (found,) = reader.read(["<|endoftext|>the 🦊 cat"], whole=False)
    assert found is not None
    assert tokenizer.unk_token_id in found.student.ids
    assert reader.problems.lines(shared=True) == []


@pytest.mark.parametrize("exact", [True, False])
def test_long_texts_are_cut_where_pieces_do_not_spell(exact: bool) -> None:
    students = encoder(composing(), exact=exact, limit=24)
    builder = ExampleBuilder(students, None, align=False, seed=1)
    text = " ".join([DECOMPOSED] * 30)
    built = list(builder.build([Document(text, "x:1")], 1000))
    assert len(built) > 5
    assert builder.notes.inexact == 0
    pieces = "".join("".join(example.text.split()) for example in built)
    expected = text if not exact else unicodedata.normalize("NFC", text)
    assert sorted(pieces) == sorted("".join(expected.split()))
    assert sum(example.bytes for example in built) == len(pieces.encode()) + sum(ex.text.count(" ") for ex in built)
    assert builder.notes.problems.record() == ({"student": {"NFC": 1}} if exact else {})
