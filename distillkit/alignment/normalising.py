"""What a tokenizer makes of a text before it encodes it: composed characters, folded white space.

Many tokenizers normalise (NFC: Qwen, Pythia; NFKC and folded white space: SentencePiece's default, T5), so that the tokens
spell another text than the one that was given. That other text is what the model reads: where the tokenizer reads it
unchanged, it can be used, and scored, in place of the first.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from distillkit.alignment.encoding import encode_batch, unknown_ids
from distillkit.alignment.token_bytes import TokenBytes, token_ids

Reading = Callable[[Sequence[str]], "list[str | None]"]
"""Texts -> those that a tokenizer reads in their place (the same where the tokens spell it); None where it cannot."""

# One pass settles nearly every text; NFC and NFKC together may need two.
_MOST_PASSES = 4
_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def reading_of(tokenizer: Any, table: TokenBytes, *, parse: bool = False) -> Reading:
    """How a tokenizer reads texts.

    Args:
        parse: names of special tokens are read as the tokens.
    """

    unknown = unknown_ids(tokenizer)

    def read(texts: Sequence[str]) -> list[str | None]:
        exact = encode_batch(tokenizer, table, texts, parse=parse)
        others = [text for text, found in zip(texts, exact, strict=True) if found is None and _is_unicode(text)]
        known = [] if table.by_offsets else token_ids(tokenizer, others, parse=parse)
        spelled = dict(zip(others, (_spelled(table, ids, parse, unknown) for ids in known), strict=False))
        return [text if found is not None else spelled.get(text) for text, found in zip(texts, exact, strict=True)]

    return read


def normalised(texts: Sequence[str], readings: Sequence[Reading]) -> list[str | None]:
    """For each text the one that all tokenizers read unchanged, made by each of them in turn; None where there is none."""
    result: list[str | None] = [None] * len(texts)
    current = dict(enumerate(texts))
    for _ in range(_MOST_PASSES):
        unsettled: set[int] = set()
        for read in readings:
            found = dict(zip(current, read(list(current.values())), strict=True))
            # One may undo what another does, so that the text comes back: each has to leave it alone.
            unsettled |= {index for index, text in found.items() if text != current[index]}
            current = {index: text for index, text in found.items() if text is not None}
        for index in [index for index in current if index not in unsettled]:
            result[index] = current.pop(index)
    return result


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # A lone surrogate.
        return False
    return True


def _spelled(table: TokenBytes, ids: Sequence[int], parse: bool, unknown: frozenset[int]) -> str | None:
    """The text that tokens spell, dummy spaces left out; None where one of them stands for no text."""
    spelled: list[bytes] = []
    begins = True  # Here a dummy space may stand.
    for index in ids:
        if index in table.specials:
            if not parse or index in unknown:
                return None
            piece = table.specials[index].encode()
        else:
            found = table.pieces[index] if index < len(table) else None
            if found is None:
                return None
            piece = found[1:] if begins and table.leading_space and found.startswith(b" ") else found
        spelled.append(piece)
        begins = index in table.added or index in table.specials
    try:
        return b"".join(spelled).decode()
    except UnicodeDecodeError:
        return None


def kind_of_change(before: str, after: str) -> str:
    """What was done to a text, for people: "NFC", "white space folded", "NFKC, white space folded", "its own rules"."""
    for form in _FORMS:
        if unicodedata.normalize(form, before) == after:
            return form
    if before.split() == after.split():
        return "white space folded"
    for form in _FORMS:
        if unicodedata.normalize(form, before).split() == after.split():
            return f"{form}, white space folded"
    return "its own rules"


def first_unreadable(text: str, reads: Callable[[Sequence[str]], Sequence[object | None]]) -> str:
    """The first character that a tokenizer cannot read, for people: "U+1F98A FOX FACE".

    Args:
        reads: texts -> something for each, None for those that cannot be read.
    """
    characters = list(dict.fromkeys(character for character in text if not character.isspace()))
    # Between two letters, where no white space is lost.
    found = reads([f"a{character}a" for character in characters])
    unread = next((character for character, item in zip(characters, found, strict=True) if item is None), None)
    if unread is None:
        return "characters that it reads alone, and not together"
    return f"U+{ord(unread):04X} {unicodedata.name(unread, '(no name)')}"
