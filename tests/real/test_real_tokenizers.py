"""GPT-2's byte-level BPE and a Llama-family SentencePiece of 32 000 tokens: the default pair's real tokenizers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_makers import encode_text
from transformers import AutoTokenizer

from distillkit.alignment.bpm import BytePrefixMap
from distillkit.alignment.encoding import encode_batch
from distillkit.alignment.rows import aligned_rows, within
from distillkit.alignment.token_bytes import TokenBytes, common_ids, same_vocabulary, token_bytes

pytestmark = pytest.mark.real

PROSE = [
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a "
    "wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, "
    "this truth is so well fixed in the minds of the surrounding families, that he is considered the rightful property "
    "of some one or other of their daughters.\n\n“My dear Mr. Bennet,” said his lady to him one day, “have you heard "
    "that Netherfield Park is let at last?” Mr. Bennet replied that he had not.",
    " a text that begins with a space",
    "naïve café, 日本語, emoji 😀👩‍👩‍👧, e\u0301, \u200b, \ufeff, \x00 and \u2028",
    "def f(x):\n    if x:\n\t\treturn  x\n",
    "",
]


@pytest.fixture(scope="module")
def gpt2(gpt2_tokenizer):
    return gpt2_tokenizer, token_bytes(gpt2_tokenizer)


@pytest.fixture(scope="module")
def llama(sentencepiece_32k_tokenizer):
    return sentencepiece_32k_tokenizer, token_bytes(sentencepiece_32k_tokenizer)


def assert_spelled(table: TokenBytes, text: str, encoding) -> None:
    spelled = b"".join(table.pieces[index] for index in encoding.ids)
    assert spelled == b" " * encoding.dummy_space + text.encode()


def test_gpt2_bytes(gpt2):
    tokenizer, table = gpt2
    assert len(table) == 50257
    assert (table.eos_id, table.specials) == (50256, {50256: "<|endoftext|>"})
    assert [index for index, piece in enumerate(table.pieces) if piece is None] == [50256]
    assert table.pieces[262] == b" the"
    assert not table.leading_space
    assert not table.shadowed
    # Each token alone: its own decoder agrees wherever the bytes are whole characters.
    for index in range(0, 50256, 7):
        spelled = (table.pieces[index] or b"").decode(errors="replace")
        if "\ufffd" not in spelled:
            assert tokenizer.decode([index], clean_up_tokenization_spaces=False) == spelled


def test_llama_bytes(llama):
    _, table = llama
    assert len(table) == 32000
    assert [index for index, piece in enumerate(table.pieces) if piece is None] == [0, 1, 2]
    assert table.eos_id == 2
    assert table.leading_space
    assert table.pieces[3:259] == tuple(bytes([byte]) for byte in range(256))
    assert 3 + ord(",") in table.shadowed
    assert table.ids_by_bytes[b","] >= 259
    assert table.ids_by_bytes[b"\n"] == 3 + ord("\n")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("text", [*PROSE, "a<|endoftext|>b", "</s>a<s> <unk></s>", "<0x41>"])
def test_texts_are_spelled_without_special_tokens(request, name, text):
    tokenizer, table = request.getfixturevalue(name)
    encoding = encode_text(tokenizer, table, text)
    assert_spelled(table, text, encoding)
    assert not set(encoding.ids) & set(table.specials)
    assert not len(text) or encoding.ends[-1] == len(text.encode())


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_is_spelled(gpt2, llama, text):
    assert_spelled(gpt2[1], text, encode_text(*gpt2, text))
    (encoding,) = encode_batch(*llama, [text])
    if encoding is None:
        assert "▁" in text
    else:
        assert_spelled(llama[1], text, encoding)


def test_the_mark_for_a_space_is_refused_in_sentencepiece_only(gpt2, llama):
    assert_spelled(gpt2[1], "a▁b", encode_text(*gpt2, "a▁b"))
    assert [found is None for found in encode_batch(*llama, ["a▁b", "ab"])] == [True, False]


def test_same_vocabulary(gpt2, llama, tmp_path):
    tokenizer, table = gpt2
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert same_vocabulary(table, token_bytes(again))
    assert not same_vocabulary(table, llama[1])
    again.add_special_tokens({"pad_token": "<pad>"})
    padded = token_bytes(again)
    assert len(padded) == 50258
    assert same_vocabulary(table, padded)
    common = common_ids(table, padded)
    assert common.shape == (50257,)
    assert common.all()


def test_smollm2_bytes(smollm2, gpt2):
    _, tokenizer = smollm2
    table = token_bytes(tokenizer)
    assert len(table) == 49152
    assert len(table.specials) == 17
    assert not table.leading_space
    for text in PROSE:
        assert_spelled(table, text, encode_text(tokenizer, table, text))
    assert not same_vocabulary(table, gpt2[1])


def test_the_map(gpt2, llama):
    table = token_bytes(gpt2[0])
    mapping = BytePrefixMap.build(table, llama[1])
    assert (mapping.student_ids == mapping.residual_id).sum() == 0
    assert mapping.student_ids[50256] == 2
    vocabulary = llama[0].get_vocab()
    assert mapping.student_ids[262] == vocabulary["▁the"]
    assert mapping.student_ids[11] == vocabulary[","]
    # No mass on tokens that are never written.
    assert not set(mapping.student_ids.tolist()) & llama[1].shadowed


def test_mass_is_conserved(gpt2, llama):
    logits = torch.randn(4, 50257, generator=torch.Generator().manual_seed(0)) * 3
    found = BytePrefixMap.build(gpt2[1], llama[1]).project(logits)
    assert (found.log_target.double().exp().sum(-1) - 1).abs().max() < 1e-6
    assert found.residual.abs().max() < 1e-6


@pytest.mark.parametrize(("teacher", "student"), [("gpt2", "llama"), ("llama", "gpt2")])
def test_rows_between_real_tokenizers(request, teacher, student):
    t_tokenizer, t_table = request.getfixturevalue(teacher)
    s_tokenizer, s_table = request.getfixturevalue(student)
    text = PROSE[0]
    s, t = encode_text(s_tokenizer, s_table, text), encode_text(t_tokenizer, t_table, text)
    found = aligned_rows(
        s, t, text.encode(), student_start=True, teacher_start=True, student_has_eos=True, teacher_has_eos=True
    )
    assert found.positions == len(s.ids) + 1
    assert found.positions_on_boundaries > 0.8 * found.positions
    assert found.positions_aligned > 0.97 * found.positions
    assert found.bytes_aligned > 0.97 * found.bytes
    mapping = BytePrefixMap.build(t_table, s_table)
    s_inputs, t_inputs = [*s.ids, s_table.eos_id], [*t.ids, t_table.eos_id]
    hits = []
    keep = within(found.teacher_rows, found.skips, found.end_rows, found.end_skips)
    for s_row, t_row in zip(found.student_rows[keep], found.teacher_rows[keep], strict=True):
        s_next, t_next = s_inputs[s_row], t_inputs[t_row]
        if s_row < len(s.ids):
            assert (t_table.pieces[t_next] or b"").startswith(s_table.pieces[s_next] or b"?")
        hits.append(int(mapping.student_ids[t_next]) == s_next)
    # The true teacher token nearly always stands for the true student token.
    assert np.mean(hits) > 0.95
