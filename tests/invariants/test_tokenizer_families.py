"""Any text, any two families of tokenizers: bytes are conserved and boundaries are exact."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_sentencepiece_tokenizer, tiny_tokenizer
from tokenizer_makers import (
    CORPUS,
    TiktokenStyle,
    byte_level,
    sentencepiece_like,
    slow_sentencepiece,
    unigram,
    word_piece,
)

from distillkit.alignment.boundaries import shared_boundaries
from distillkit.alignment.encoding import Encoding, encode_batch
from distillkit.alignment.rows import LEAD, aligned_rows
from distillkit.alignment.token_bytes import TokenBytes, token_bytes

FAMILIES = (
    "byte-level", "byte-level, prefix space", "sentencepiece bpe", "sentencepiece bpe, as converted", "unigram",
    "slow sentencepiece", "tiktoken", "word pieces",
)  # fmt: skip
WORDS = st.lists(st.sampled_from([*CORPUS[0].split(), ",", "x", "é"]), max_size=8).map(" ".join)
TEXTS = st.text(max_size=30) | WORDS | st.text(st.sampled_from("the cat.\n \t😀é日"), max_size=30)


class Families(dict[str, tuple[Any, TokenBytes]]):
    """name -> tokenizer and table; hypothesis prints it with every failure."""

    def __repr__(self) -> str:
        return f"Families({list(self)})"


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Families:
    made = [
        tiny_tokenizer(), byte_level(add_prefix_space=True), sentencepiece_like(),
        tiny_sentencepiece_tokenizer(tmp_path_factory.mktemp("converted")), unigram(),
        slow_sentencepiece(tmp_path_factory.mktemp("slow")), TiktokenStyle(), word_piece(),
    ]  # fmt: skip
    return Families({name: (tokenizer, token_bytes(tokenizer)) for name, tokenizer in zip(FAMILIES, made, strict=True)})


def stands_for(table: TokenBytes, encoding: Encoding, data: bytes, index: int) -> bytes:
    """The bytes of the text that a token covers, a dummy space with them."""
    begin = int(encoding.ends[index - 1]) if index else 0
    return b" " * (encoding.dummy_space and index == 0) + data[begin : int(encoding.ends[index])]


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_bytes_are_conserved_and_boundaries_exact(families, text):
    data = text.encode()
    read = {name: encode_batch(tokenizer, table, [text])[0] for name, (tokenizer, table) in families.items()}
    # Those with a token for every byte refuse nothing but their own mark for a space.
    assert all(read[name] is not None for name in ("byte-level", "tiktoken", "byte-level, prefix space"))
    known = {name: encoding for name, encoding in read.items() if encoding is not None}
    for name, encoding in known.items():
        table = families[name][1]
        pieces = [table.pieces[index] for index in encoding.ids]
        covered = [stands_for(table, encoding, data, index) for index in range(len(encoding.ids))]
        assert b"".join(covered) == b" " * (encoding.dummy_space and bool(covered)) + data
        unlike = [False] * len(pieces) if encoding.unlike is None else encoding.unlike.tolist()
        # A dummy space that is a token of its own covers nothing.
        assert all(odd or piece == part for odd, piece, part in zip(unlike, pieces, covered, strict=True))
        assert encoding.unlike is None or table.by_offsets
    for one, other in itertools.permutations(known, 2):
        a, b = known[one].ends, known[other].ends
        first, second = shared_boundaries(a, b)
        assert a[first].tolist() == b[second].tolist() == sorted(set(a.tolist()) & set(b.tolist()))


@settings(max_examples=100, deadline=None)
@given(text=TEXTS, pair=st.sampled_from(list(itertools.permutations(FAMILIES, 2))))
def test_rows_cover_what_the_students_token_covers(families, text, pair):
    data = text.encode()
    (s_tokenizer, s_table), (t_tokenizer, t_table) = (families[name] for name in pair)
    student, teacher = (
        encode_batch(tokenizer, table, [text])[0]
        for tokenizer, table in ((s_tokenizer, s_table), (t_tokenizer, t_table))
    )
    if student is None or teacher is None:
        return
    found = aligned_rows(
        student, teacher, data, student_start=True, teacher_start=True, student_has_eos=False, teacher_has_eos=False
    )
    at, ends = np.append(0, student.ends), np.append(0, teacher.ends)
    for s_row, t_row, skip, e_row, e_skip in zip(
        found.student_rows, found.teacher_rows, found.skips, found.end_rows, found.end_skips, strict=True
    ):
        assert (
            ends[t_row] + (0 if skip == LEAD else skip) - (t_row == 0 and teacher.dummy_space and skip > 0) == at[s_row]
        )
        assert ends[e_row] + e_skip - (e_row == 0 and teacher.dummy_space and e_skip > 0) == at[s_row + 1]
        # Inside a row both tokens are what their vocabularies say.
        assert student.unlike is None or not student.unlike[s_row]
        assert teacher.unlike is None or not teacher.unlike[t_row : e_row + (e_skip > 0)].any()
