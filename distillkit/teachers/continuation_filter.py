"""Which of the teacher's texts are not worth learning from, and why."""

from __future__ import annotations

import unicodedata
import zlib

# Prose of any length compresses to a third at best; verse with a refrain to a fifth. A loop goes far below.
_LOOP_RATIO = 0.12
_SHORTEST_COMPRESSED = 200
# Short loops: the last so many characters are one piece again and again.
_LOOP_REPEATS = 5
_LONGEST_PERIOD = 60
_NOT_TEXT_SHARE = 0.1


def judge(continuation: str, seen: set[str]) -> str | None:
    """Why a continuation is dropped, or None to keep it. What is kept is added to `seen`.

    Reasons:
        "empty": nothing but white space.
        "not text": more than a tenth are replacement or control characters: the bytes were no UTF-8.
        "repetition": it ends in a loop, or as a whole compresses far better than any prose or verse.
        "duplicate": the same text came before.
    """
    text = continuation.strip()
    if not text:
        return "empty"
    strange = sum(
        character == "\ufffd" or (unicodedata.category(character) == "Cc" and character not in "\n\t\r")
        for character in text
    )
    if strange > _NOT_TEXT_SHARE * len(text):
        return "not text"
    if _ends_in_loop(text) or _compresses_like_a_loop(text):
        return "repetition"
    if text in seen:
        return "duplicate"
    seen.add(text)
    return None


def _compresses_like_a_loop(text: str) -> bool:
    raw = text.encode("utf-8", "replace")
    return len(raw) >= _SHORTEST_COMPRESSED and len(zlib.compress(raw, 9)) < _LOOP_RATIO * len(raw)


def _ends_in_loop(text: str) -> bool:
    """Whether the text ends in at least five copies of one piece of up to 60 characters that says something."""
    for period in range(2, min(_LONGEST_PERIOD, len(text) // _LOOP_REPEATS) + 1):
        piece = text[-period:]
        # Rules of dashes and dots are typography, not a loop; a loop has letters.
        if any(character.isalnum() for character in piece) and text.endswith(piece * _LOOP_REPEATS):
            return True
    return False
