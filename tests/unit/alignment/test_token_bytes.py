"""What tokens spell: every family of tokenizers, made on the spot."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_makers import (
    TiktokenStyle,
    byte_level,
    encode_text,
    sentencepiece_like,
    slow_sentencepiece,
    unigram,
    word_piece,
)
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distillkit.alignment.encoding import encode_batch
from distillkit.alignment.token_bytes import TokenBytes, common_ids, same_vocabulary, token_bytes
from distillkit.errors import PreconditionError

NASTY = [
    "the cat",
    " the cat",
    "",
    " ",
    "\n\nthe",
    "a  b\t\n c",
    "naïve café 😀 日本語 \u200b\u0301",
    "\ufeffthe",
    "cat\x00dog\r\n",
    "\u2028x",
]


MAKERS = {
    "byte-level": byte_level,
    "byte-level, prefix space": lambda: byte_level(add_prefix_space=True),
    "sentencepiece": sentencepiece_like,
    "unigram": unigram,
    "tiktoken": TiktokenStyle,
}


@pytest.fixture(scope="module", params=list(MAKERS))
def made(request):
    tokenizer = MAKERS[request.param]()
    return tokenizer, token_bytes(tokenizer)


def assert_exact(table: TokenBytes, text: str, encoding) -> None:
    data = text.encode()
    spelled = b"".join(table.pieces[index] for index in encoding.ids)
    assert spelled == (b" " if encoding.dummy_space else b"") + data
    covered = [len(b"".join(table.pieces[index] for index in encoding.ids[: n + 1])) for n in range(len(encoding.ids))]
    assert encoding.ends.tolist() == [max(end - encoding.dummy_space, 0) for end in covered]
    assert encoding.ends.dtype == np.int64
    assert not len(data) or encoding.ends[-1] == len(data)


@pytest.mark.parametrize("text", NASTY)
def test_tokens_spell_the_text(made, text):
    tokenizer, table = made
    assert_exact(table, text, encode_text(tokenizer, table, text))


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text_is_spelled_or_refused(made, text):
    tokenizer, table = made
    (encoding,) = encode_batch(tokenizer, table, [text])
    if encoding is None:
        # Only the mark for a space is out of reach of a SentencePiece vocabulary.
        assert "▁" in text
    else:
        assert_exact(table, text, encoding)


def test_byte_level_pieces():
    tokenizer = byte_level()
    table = token_bytes(tokenizer)
    vocabulary = tokenizer.get_vocab()
    assert table.pieces[vocabulary["Ġthe"]] == b" the"
    assert table.pieces[vocabulary["Ċ"]] == b"\n"
    assert {piece for piece in table.pieces if piece and len(piece) == 1} == {bytes([byte]) for byte in range(256)}
    assert table.pieces[table.eos_id] is None
    assert table.specials == {table.eos_id: "<|endoftext|>"}
    assert (table.leading_space, table.shadowed) == (False, frozenset())


def test_sentencepiece_pieces_and_twins():
    tokenizer = sentencepiece_like()
    table = token_bytes(tokenizer)
    vocabulary = tokenizer.get_vocab()
    assert table.pieces[vocabulary["▁the"]] == b" the"
    assert table.pieces[vocabulary["<0x0A>"]] == b"\n"
    assert table.leading_space
    # `,` is an ordinary token, so `<0x2C>` is never written; nothing else spells a line break.
    assert vocabulary["<0x2C>"] in table.shadowed
    assert table.ids_by_bytes[b","] == vocabulary[","]
    assert table.ids_by_bytes[b" "] == vocabulary["▁"]
    assert table.ids_by_bytes[b"\n"] == vocabulary["<0x0A>"]
    assert table.eos_id == 2
    assert table.pieces[:3] == (None, None, None)


def test_a_dummy_space_on_its_own_covers_no_byte():
    tokenizer = sentencepiece_like()
    encoding = encode_text(tokenizer, token_bytes(tokenizer), "\nthe")
    assert encoding.dummy_space
    assert encoding.ends[:2].tolist() == [0, 1]


def test_a_space_of_the_text_is_no_dummy():
    tokenizer = sentencepiece_like()
    table = token_bytes(tokenizer)
    assert not encode_text(tokenizer, table, " the").dummy_space
    assert encode_text(tokenizer, table, "the").dummy_space


@pytest.mark.parametrize("maker", [byte_level, sentencepiece_like, TiktokenStyle])
@pytest.mark.parametrize("name", ["<|endoftext|>", "</s>", "<s>", "<unk>", "<0x41>"])
def test_names_of_special_tokens_are_ordinary_text(maker, name):
    tokenizer = maker()
    table = token_bytes(tokenizer)
    text = f"the {name} cat{name}"
    encoding = encode_text(tokenizer, table, text)
    assert not set(encoding.ids) & set(table.specials)
    assert_exact(table, text, encoding)


def test_a_special_token_that_cannot_be_written_as_text_is_refused():
    # A unigram model finds `</s>` in its own vocabulary whatever the tokenizer is told.
    tokenizer = unigram()
    assert encode_batch(tokenizer, token_bytes(tokenizer), ["the</s>cat"]) == [None]


def test_added_tokens_count_with_their_text():
    tokenizer = byte_level()
    size = len(tokenizer)
    tokenizer.add_tokens([AddedToken("<tool call>", special=False, normalized=False)])
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    table = token_bytes(tokenizer)
    assert table.pieces[size] == b"<tool call>"
    assert table.pieces[size + 1] is None
    encoding = encode_text(tokenizer, table, "the <tool call>é")
    assert size in encoding.ids
    assert_exact(table, "the <tool call>é", encoding)


def test_of_two_tokens_that_spell_the_same_the_written_one_is_meant():
    tokenizer = byte_level()
    vocabulary = tokenizer.get_vocab()
    plain = vocabulary["Ġthe"]
    tokenizer.add_tokens([AddedToken(" the", special=False, normalized=False)])
    added = len(tokenizer) - 1
    table = token_bytes(tokenizer)
    written = encode_text(tokenizer, table, " the").ids
    assert written == [added]
    assert plain in table.shadowed
    assert table.ids_by_bytes[b" the"] == added


def test_slow_sentencepiece(tmp_path):
    tokenizer = slow_sentencepiece(tmp_path)
    table = token_bytes(tokenizer)
    assert table.leading_space
    assert table.pieces[tokenizer.convert_tokens_to_ids("<0x0A>")] == b"\n"
    assert tokenizer.convert_tokens_to_ids("<0x74>") in table.shadowed
    for text in [*NASTY, "a</s><s>b"]:
        encoding = encode_text(tokenizer, table, text)
        assert not set(encoding.ids) & set(table.specials)
        assert_exact(table, text, encoding)


def test_slow_sentencepiece_without_dummy_space(tmp_path):
    tokenizer = slow_sentencepiece(tmp_path, legacy=False)
    table = token_bytes(tokenizer)
    assert not table.leading_space
    assert_exact(table, "the cat", encode_text(tokenizer, table, "the cat"))


def test_tiktoken_table_and_its_end_of_text():
    tokenizer = TiktokenStyle()
    table = token_bytes(tokenizer)
    assert table.eos_id == tokenizer.eod_id
    assert table.pieces[258] == b" the"
    assert table.pieces[259] == b"\xe6\x97"


def test_batches_equal_single_texts(made):
    tokenizer, table = made
    texts = [*NASTY, "bad \ud800 surrogate", *NASTY * 60]
    batch = encode_batch(tokenizer, table, texts)
    assert len(batch) == len(texts)
    assert batch[len(NASTY)] is None
    for text, encoding in list(zip(texts, batch, strict=True))[-len(NASTY) :]:
        alone = encode_text(tokenizer, table, text)
        assert encoding is not None
        assert (encoding.ids, encoding.ends.tolist()) == (alone.ids, alone.ends.tolist())
    assert encode_batch(tokenizer, table, []) == []


def test_a_changing_normaliser_makes_single_texts_inexact():
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    table = token_bytes(tokenizer)
    assert_exact(table, "caf\u00e9", encode_text(tokenizer, table, "caf\u00e9"))
    assert [found is None for found in encode_batch(tokenizer, table, ["cafe\u0301", "cat"])] == [True, False]


def lowercasing():
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    return tokenizer


def end_of_word():
    backend = Tokenizer(models.BPE({"t": 0, "t</w>": 1}, [], end_of_word_suffix="</w>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def words():
    backend = Tokenizer(models.WordLevel({"the": 0, "[UNK]": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


@pytest.mark.parametrize("maker", [lowercasing, end_of_word, words])
def test_unknowable_bytes_are_refused_with_the_way_out(maker):
    with pytest.raises(PreconditionError, match="cannot be known") as caught:
        token_bytes(maker())
    assert "--box-type black" in (caught.value.hint or "")


def test_same_vocabulary():
    tokenizer = byte_level()
    table = token_bytes(tokenizer)
    assert same_vocabulary(table, token_bytes(byte_level()))
    assert same_vocabulary(table, dataclasses.replace(table, pieces=table.pieces + (None,) * 7))
    assert same_vocabulary(dataclasses.replace(table, pieces=table.pieces + (None,) * 7), table)
    assert not same_vocabulary(table, dataclasses.replace(table, pieces=(*table.pieces, b"more")))
    assert not same_vocabulary(table, token_bytes(sentencepiece_like()))
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert same_vocabulary(table, token_bytes(tokenizer))


def test_equal_sizes_are_not_the_same_vocabulary():
    pieces = token_bytes(byte_level()).pieces
    swapped = list(pieces)
    swapped[-1], swapped[-2] = swapped[-2], swapped[-1]
    assert not same_vocabulary(TokenBytes(pieces), TokenBytes(tuple(swapped)))


def test_another_choice_among_twins_is_another_vocabulary():
    first = TokenBytes((b",", b","), shadowed=frozenset({0}))
    assert not same_vocabulary(first, TokenBytes((b",", b","), shadowed=frozenset({1})))


def test_common_ids_leave_out_holes_padding_and_other_specials():
    a = TokenBytes((b"a", None, b"b", None, None, None), specials={3: "<pad>", 4: "</s>", 5: "<x>"}, eos_id=4)
    b = TokenBytes((b"a", None, b"B", None, None, None, None), specials={3: "<mask>", 4: "<end>", 5: "<x>"}, eos_id=4)
    assert common_ids(a, b).tolist() == [True, False, False, False, True, True]
    assert common_ids(a, dataclasses.replace(b, eos_id=5)).tolist() == [True, False, False, False, False, True]


def test_word_pieces_spell_what_they_usually_stand_for():
    tokenizer = word_piece()
    table = token_bytes(tokenizer)
    ids = tokenizer.get_vocab()
    assert table.by_offsets
    assert table.leading_space
    assert table.pieces[ids["the"]] == b" the"
    assert table.pieces[ids["##t"]] == b"t"
    assert [table.pieces[ids[mark]] for mark in (",", ".", "(")] == [b",", b".", b" ("]
    found = encode_text(tokenizer, table, "the cat,  the\ncat ")
    assert found.dummy_space
    assert found.unlike is not None
    spans = [found.ends[index] - found.ends[index - 1] if index else found.ends[0] for index in range(len(found.ids))]
    assert sum(spans) == len(b"the cat,  the\ncat ")
    # Two spaces and a line break are not what the words after them usually begin with.
    assert found.unlike.tolist() == [False, False, False, True, True]
    assert encode_batch(tokenizer, table, ["the \u65e5"]) == [None]
    assert encode_text(tokenizer, table, "").ids == []


def test_a_word_piece_that_changes_letters_is_refused():
    tokenizer = word_piece()
    for options in ({"lowercase": True}, {"lowercase": False, "strip_accents": True}):
        tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(**options)
        with pytest.raises(PreconditionError, match="changes the text"):
            token_bytes(tokenizer)
