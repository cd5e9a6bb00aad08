"""Whether held-out texts stand in texts that another student has learnt from, however those were cut.

As for GPT-4 (OpenAI 2023, arXiv 2303.08774, appendix C) a text is known where fifty letters and digits in a row of it are:
white space and punctuation do not count. All such stretches are looked at, not three of them; a text that is shorter has to be
the whole of one that was learnt. Stretches are compared by a polynomial hash modulo 2^64, of which all begin in one sum.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

STRETCH = 50

_NO_LETTERS = re.compile(r"[\W_]+")
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT = np.uint64(29)
# Most stretches of learnt texts are none of those that are looked for: their upper bits tell, without a search.
_BITS = 22
_UPPER = np.uint64(64 - _BITS)


def letters(text: str) -> str:
    """The letters and digits of a text."""
    return _NO_LETTERS.sub("", text)


class KnownTexts:
    """Finds which of some documents stand in texts that are read afterwards.

    Args:
        documents: of each, its texts.
    """

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        self._powers = _Powers()
        self._stretches: list[np.ndarray] = []
        self._short: list[set[str]] = []
        for texts in documents:
            kept = [letters(text) for text in texts]
            hashes = [self._powers.stretches(one) for one in kept if len(one) >= STRETCH]
            self._stretches.append(np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, dtype=np.uint64))
            self._short.append({one for one in kept if 0 < len(one) < STRETCH})
        self._wanted = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *self._stretches]))
        self._wanted_short = set().union(*self._short)
        self._upper = np.zeros(1 << _BITS, dtype=bool)
        self._upper[self._wanted >> _UPPER] = True
        self._met = np.zeros(len(self._wanted), dtype=bool)
        self._met_short: set[str] = set()

    def read(self, text: str) -> None:
        """A text that was learnt."""
        kept = letters(text)
        if kept in self._wanted_short:
            self._met_short.add(kept)
        if len(kept) < STRETCH or not len(self._wanted):
            return
        hashes = self._powers.stretches(kept)
        hashes = hashes[self._upper[hashes >> _UPPER]]
        places = np.minimum(np.searchsorted(self._wanted, hashes), len(self._wanted) - 1)
        self._met[places[self._wanted[places] == hashes]] = True

    def met(self) -> list[bool]:
        """Of each document, whether any of its texts has been met."""
        return [
            bool(self._met[np.searchsorted(self._wanted, stretches)].any()) or not short.isdisjoint(self._met_short)
            for stretches, short in zip(self._stretches, self._short, strict=True)
        ]


class _Powers:
    """Powers of the base and of its inverse modulo 2^64, as many as the longest text needs."""

    def __init__(self) -> None:
        self._grow(1 << 12)

    def _grow(self, count: int) -> None:
        inverse = pow(_BASE, -1, 1 << 64)
        self._up, self._down = (
            np.cumprod(np.concatenate([np.ones(1, dtype=np.uint64), np.full(count, base, dtype=np.uint64)]))
            for base in (_BASE, inverse)
        )

    def stretches(self, text: str) -> np.ndarray:
        """[len(text) - STRETCH + 1] uint64: a hash of every stretch of a text that has no white space."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
        if len(points) >= len(self._up):
            self._grow(2 * len(points))
        sums = np.zeros(len(points) + 1, dtype=np.uint64)
        mixed = (points + np.uint64(1)) * _MIX
        np.cumsum((mixed ^ (mixed >> _SHIFT)) * self._up[: len(points)], out=sums[1:])
        found = (sums[STRETCH:] - sums[:-STRETCH]) * self._down[: len(points) - STRETCH + 1]
        return found ^ (found >> _SHIFT)
