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

Reading = Callable[[str], "str | None"]
"""A text -> the text that a tokenizer reads in its place (the same where the tokens spell it); None where it cannot."""

# One pass settles nearly every text; NFC and NFKC together may need two.
_MOST_PASSES = 4
_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def reading_of(tokenizer: Any, table: TokenBytes, *, parse: bool = False) -> Reading:
    """How a tokenizer reads texts.

    Args:
        parse: names of special tokens are read as the tokens.
    """

    unknown = unknown_ids(tokenizer)

    def read(text: str) -> str | None:
        if encode_batch(tokenizer, table, [text], parse=parse)[0] is not None:
            return text
        return None if table.by_offsets else _spelled(tokenizer, table, text, parse, unknown)

    return read


def normalised(text: str, readings: Sequence[Reading]) -> str | None:
    """The text that all tokenizers read unchanged, made by each of them in turn; None where there is none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    for _ in range(_MOST_PASSES):
        before = text
        for read in readings:
            reading = read(text)
            if reading is None:
                return None
            text = reading
        if text == before:
            return text
    return None


def _spelled(tokenizer: Any, table: TokenBytes, text: str, parse: bool, unknown: frozenset[int]) -> str | None:
    """The text that the tokens spell, dummy spaces left out; None where one of them stands for no text."""
    spelled: list[bytes] = []
    begins = True  # Here a dummy space may stand.
    for index in token_ids(tokenizer, [text], parse=parse)[0]:
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
