"""Vocabularies and segmentations as hypothesis draws them: what holds for these holds for real tokenizers."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from distillkit.alignment.encoding import Encoding
from distillkit.alignment.token_bytes import TokenBytes

# Few letters, so that pieces overlap; white space and multi-byte characters among them.
TEXT = st.text(st.sampled_from("ab \n\té😀\u0301"), max_size=25) | st.text(max_size=15)
SOME_BYTES = st.binary(min_size=1, max_size=3) | TEXT.map(str.encode).filter(bool)


@st.composite
def vocabularies(draw, complete: bool = True) -> TokenBytes:
    """Two specials (0: EOS), byte tokens (all of them if `complete`), then pieces, in part spelling the same."""
    pieces = draw(st.lists(SOME_BYTES | st.sampled_from([b" the", b"ab", b" a", b"  "]), max_size=12))
    single = [bytes([byte]) for byte in range(256)] if complete else []
    table = [None, None, *single, *pieces]
    seen: set[bytes] = set()
    shadowed = set()
    for index in reversed(range(len(table))):  # The last of several counts, so lowest-id-wins would be noticed.
        piece = table[index]
        if piece is not None and piece in seen:
            shadowed.add(index)
        seen |= {piece} if piece is not None else set()
    return TokenBytes(tuple(table), draw(st.booleans()), {0: "</s>", 1: "<s>"}, frozenset(shadowed), eos_id=0)


def random_tokens(table: TokenBytes, text: bytes, seed: int) -> Encoding:
    """Any segmentation of the text: what holds for it holds for a real tokenizer's."""
    random = np.random.default_rng(seed)
    dummy_space = table.leading_space and bool(text)
    rest = (b" " if dummy_space else b"") + text
    ids: list[int] = []
    while rest:
        fitting = [index for index, piece in enumerate(table.pieces) if piece and rest.startswith(piece)]
        ids.append(int(random.choice(fitting)))
        rest = rest[len(table.pieces[ids[-1]] or b"") :]
    ends = np.cumsum([len(table.pieces[index] or b"") for index in ids], dtype=np.int64)
    return Encoding(ids, np.maximum(ends - int(dummy_space), 0), dummy_space)
