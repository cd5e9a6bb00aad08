"""Which of a teacher's continuations are not worth learning: empty ones, noise, repetition loops, duplicates.

Language models that sample fall into loops, and a student that reads loops learns to loop. What merely repeats itself
as people do (refrains, lists, tables) has to pass: it is part of the language.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Literal

import numpy as np

# "refused": a server's own filter did not let it through, and nothing was judged here.
Reason = Literal["empty", "not text", "repetition", "duplicate", "refused"]

# Real text has next to none of these characters; bytes that spell nothing come in numbers.
_MOST_NOISE = 0.1

# A loop is a unit said again and again without anything in between, digits apart ("1. yes 2. yes 3. yes"). Four times
# and 60 characters: "no, no, no, no" and a line said three times are speech. A unit without letters (rules, dots,
# indentation, columns of figures) is layout and counts only where it is most of the text.
_LOOP_TIMES = 4
_LOOP_CHARACTERS = 60
_LONGEST_LOOPED_UNIT = 400
_MOST_LAYOUT = 0.8
# A loop inside a text that finds its way out again is forgiven if it is less than this share of it.
_LOOP_SHARE = 0.3

# Loops with a long unit, or with small changes: share of the pieces of this many characters that have occurred before.
# Measured on 150 to 2500 characters at a time: prose and verse at most 0.25, reference pages with tables 0.28, code
# 0.41, songs with a refrain 0.5, a cumulative rhyme (the house that Jack built) 0.54; a paragraph said three times 0.66.
_PIECE = 20
MOST_REPEATED = 0.6
_FEWEST_PIECES = 100


def reason_to_drop(continuation: str) -> Reason | None:
    """Why a continuation alone is not worth learning, or None if it is."""
    if not continuation.strip():
        return "empty"
    if _noise(continuation) > _MOST_NOISE:
        return "not text"
    masked = _masked(continuation)
    pieces = _pieces(masked)
    if _loops(masked) or (len(pieces) >= _FEWEST_PIECES and _share(pieces) > MOST_REPEATED):
        return "repetition"
    return None


def repeated_share(text: str) -> float:
    """Share of the pieces of 20 characters of a text that have occurred in it before; case, digits and layout do not count.

    Returns:
        0 to 1; 0 for a text without such a piece.
    """
    return _share(_pieces(_masked(text)))


class ContinuationFilter:
    """Judges continuations one after another; what was kept before makes a later one a duplicate.

    Args:
        of_prompt: only answers to one and the same prompt are duplicates: that two questions have one answer is no fault.
    """

    def __init__(self, *, of_prompt: bool = False) -> None:
        self._kept: set[bytes] = set()
        self._of_prompt = of_prompt

    def judge(self, prompt: str, continuation: str) -> Reason | None:
        """Why a continuation is dropped, or None: it is kept and remembered.

        A duplicate is the same continuation of whatever prompt, or the same whole text cut elsewhere, unless `of_prompt`; white
        space and case do not count.
        """
        reason = reason_to_drop(continuation)
        if reason is None and not self._kept.isdisjoint(self._keys(prompt, continuation)):
            reason = "duplicate"
        if reason is None:
            self.remember(prompt, continuation)
        return reason

    def remember(self, prompt: str, continuation: str) -> None:
        """Count a continuation as kept that was judged earlier."""
        self._kept.update(self._keys(prompt, continuation))

    def _keys(self, prompt: str, continuation: str) -> tuple[bytes, ...]:
        if self._of_prompt:
            return (b"a" + _digest(prompt) + _digest(continuation),)
        # Two name spaces: that a short whole text equals a continuation of another prompt means nothing.
        return b"c" + _digest(continuation), b"w" + _digest(prompt + continuation)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(" ".join(text.casefold().split()).encode("utf-8"), digest_size=16).digest()


def _masked(text: str) -> str:
    """Without what makes a loop look new: case, white space, counting."""
    return "".join("0" if character.isdigit() else character for character in " ".join(text.casefold().split()))


def _noise(text: str) -> float:
    """Share of replacement, control, unassigned and private-use characters."""
    noise = sum(
        character == "\ufffd" or (unicodedata.category(character) in ("Cc", "Cn", "Co") and character not in "\t\n\r")
        for character in text
    )
    return noise / len(text)


def _loops(text: str) -> bool:
    """Whether a unit is repeated back to back: at the end of the text, where the model never left the loop, or as a
    large part of it."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    for unit in range(1, min(_LONGEST_LOOPED_UNIT, len(codes) // _LOOP_TIMES) + 1):
        start, matched = _longest_run(codes[unit:] == codes[:-unit])
        length = matched + unit
        if length < max(_LOOP_TIMES * unit, _LOOP_CHARACTERS):
            continue
        if any(character.isalpha() for character in text[start : start + unit]):
            if start + length >= len(text) - unit or length >= _LOOP_SHARE * len(text):
                return True
        elif length >= _MOST_LAYOUT * len(text):
            return True
    return False


def _longest_run(same: np.ndarray) -> tuple[int, int]:
    """Begin and length of the longest stretch of True; of several, the last."""
    breaks = np.flatnonzero(~same)
    edges = np.concatenate([[-1], breaks, [len(same)]])
    lengths = np.diff(edges) - 1
    longest = len(lengths) - 1 - int(lengths[::-1].argmax())
    return int(edges[longest]) + 1, int(lengths[longest])


def _pieces(text: str) -> list[str]:
    """The overlapping pieces of `_PIECE` characters, layout left out."""
    pieces = [text[begin : begin + _PIECE] for begin in range(len(text) - _PIECE + 1)]
    return [piece for piece in pieces if any(character.isalpha() for character in piece)]


def _share(pieces: list[str]) -> float:
    return 1 - len(set(pieces)) / len(pieces) if pieces else 0.0
