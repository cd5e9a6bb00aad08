"""What tokens that a model has written say, by their bytes.

transformers decodes slow SentencePiece tokenizers token by token: a byte of a character comes out as `<0xE6>`, and white
space at either end is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distillkit.alignment.token_bytes import TokenBytes


def is_decoded_by_bytes(tokenizer: Any, table: TokenBytes | None) -> bool:
    """Whether `spelled_after` says what these tokens mean, where the tokenizer's own `decode` may not."""
    return table is not None and not table.by_offsets and not getattr(tokenizer, "is_fast", False)


def spelled_after(table: TokenBytes, prompt: Sequence[int], new: Sequence[int], *, names: bool) -> str:
    """The text of `new`, which follows `prompt`; U+FFFD for bytes that are no character.

    Args:
        names: special tokens stand in it by their names; else they are left out.
    """
    spelled: list[bytes] = []
    # There a space may stand that is not in the text.
    begins = not prompt or _stands_apart(table, prompt[-1])
    for index in new:
        if index in table.specials:
            piece = table.specials[index].encode() if names else b""
        else:
            piece = (table.pieces[index] if index < len(table) else None) or b""
            piece = piece.removeprefix(b" ") if begins and table.leading_space else piece
        spelled.append(piece)
        begins = _stands_apart(table, index)
    return b"".join(spelled).decode("utf-8", "replace")


def _stands_apart(table: TokenBytes, index: int) -> bool:
    return index in table.added or index in table.specials
