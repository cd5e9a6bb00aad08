"""What the tokens of a WordPiece vocabulary spell.

WordPiece (BERT; Schuster and Nakajima 2012) splits at white space and punctuation, forgets the white space, and marks
only that a piece continues a word (`##ing`). So a piece has no bytes of its own; what it has is the way that it is
nearly always written: a word after a space, punctuation and ideographs after none.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any


def is_word_piece(tokenizer: Any) -> bool:
    """Whether a fast tokenizer's model is WordPiece."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and type(backend.model).__name__ == "WordPiece"


def word_pieces(vocabulary: Mapping[str, int], prefix: str) -> dict[int, bytes]:
    """id -> the bytes that the piece usually adds to a text.

    Args:
        prefix: what marks the continuation of a word, "##".
    """
    return {index: _usual(piece, prefix).encode() for piece, index in vocabulary.items()}


def _usual(piece: str, prefix: str) -> str:
    if prefix and piece.startswith(prefix) and len(piece) > len(prefix):
        return piece[len(prefix) :]
    return piece if len(piece) == 1 and _stands_alone(piece) else f" {piece}"


def _stands_alone(character: str) -> bool:
    """Closing punctuation and ideographs: no space before them. An opening bracket or quotation mark has one."""
    category = unicodedata.category(character)
    if category in ("Ps", "Pi"):
        return False
    return category[0] in "PS" or unicodedata.east_asian_width(character) in "WF"
