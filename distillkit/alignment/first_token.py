"""The student's first token of a piece of text that the teacher would write: three answers to the same question.

Each takes pieces (bytes) and gives [len(pieces)] int64 ids of the student, `len(student)` where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distillkit.alignment.encoding import encode_batch
from distillkit.alignment.token_bytes import TokenBytes

FirstTokens = Callable[[Sequence[bytes]], np.ndarray]


def longest_prefix(student: TokenBytes) -> FirstTokens:
    """The longest student token that is a prefix of the piece (arXiv 2607.22334).

    Where several student tokens spell the same bytes, it is the one that the student's tokenizer writes
    (`TokenBytes.shadowed`): probability on a byte-fallback token that never occurs would be lost.
    """
    ids, none = student.ids_by_bytes, len(student)
    longest = max(map(len, ids), default=0)

    def first(piece: bytes) -> int:
        prefixes = (piece[:end] for end in range(min(len(piece), longest), 0, -1))
        return next((ids[prefix] for prefix in prefixes if prefix in ids), none)

    return lambda pieces: np.fromiter(map(first, pieces), np.int64, len(pieces))


def exact_twin(student: TokenBytes) -> FirstTokens:
    """The student token of the very same bytes: the strict match, for the vocabulary that both share."""
    ids, none = student.ids_by_bytes, len(student)
    return lambda pieces: np.fromiter((ids.get(piece, none) for piece in pieces), np.int64, len(pieces))


# Characters that hardly any tokenizer merges with what follows, so that the piece is encoded as in the middle of a text.
_ANCHORS = ("\n", "\x01", "|")


def canonical_first(student: TokenBytes, tokenizer: Any) -> FirstTokens:
    """The first token that the student's tokenizer writes for the piece in the middle of a text.

    Pieces that are no text (parts of a character), and those that the tokenizer merges with what stands before them,
    get their longest prefix.
    """
    fallback = longest_prefix(student)

    def first(pieces: Sequence[bytes]) -> np.ndarray:
        ids = np.full(len(pieces), -1, dtype=np.int64)
        for anchor in _ANCHORS:
            waiting = [index for index in np.flatnonzero(ids < 0).tolist() if _is_text(pieces[index])]
            texts = [anchor + pieces[index].decode() for index in waiting]
            for index, encoding in zip(waiting, encode_batch(tokenizer, student, texts), strict=True):
                if encoding is None:
                    continue
                # The token that begins just behind the anchor.
                begin = int(np.searchsorted(encoding.ends, len(anchor), side="right"))
                if begin < len(encoding.ids) and begin > 0 and encoding.ends[begin - 1] == len(anchor):
                    ids[index] = encoding.ids[begin]
        left = np.flatnonzero(ids < 0).tolist()
        ids[left] = fallback([pieces[index] for index in left])
        return ids

    return first


def _is_text(piece: bytes) -> bool:
    try:
        return bool(piece.decode())
    except UnicodeDecodeError:
        return False
