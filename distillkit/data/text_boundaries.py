"""Where a text may be cut: paragraphs, lines, sentences, words, and the characters as a reader sees them.

A reader's character is an extended grapheme cluster (Unicode Standard Annex 29): a letter with its marks, a syllable of
Hangul, a conjunct of an Indic script, a joined or coloured emoji, a flag, CR LF. Nothing is ever cut inside one that fits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import regex

SENTENCE_END = r"""[.!?…؟۔।॥]["'”’»)\]]*"""
"""What ends a sentence if white space follows."""
WIDE_SENTENCE_END = r"""[。！？]["'”’」』]*"""
"""What ends a sentence by itself."""

# `\X` alone counts all flags before a flag, which is quadratic in a row of flags: pairs are taken here.
_CLUSTER = regex.compile(
    r"\p{GCB=Prepend}*+\p{GCB=Regional_Indicator}{2}[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}]*+|\X"
)
# Next to none of these every character is a cluster of its own.
_JOINS = regex.compile(
    r"[\r\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}\p{GCB=Prepend}\p{GCB=L}\p{GCB=V}\p{GCB=T}\p{GCB=Regional_Indicator}]"
)
_BREAK = re.compile(rf"({SENTENCE_END})?(\s+)|{WIDE_SENTENCE_END}(\s*)")
# Where so many lines are indented, the lines themselves mean something: code, lists, verse.
_INDENTED_SHARE = 1 / 8


class Break(IntEnum):
    """What ends at a place, from weak to strong."""

    NONE = 0
    WORD = 1
    SENTENCE = 2
    LINE = 3
    PARAGRAPH = 4


def cluster_boundaries(text: str) -> np.ndarray:
    """[n] int64, ascending: where the grapheme clusters of `text` begin, in UTF-8 bytes, and its length. In linear time."""
    at = _byte_offsets(text)
    if not _JOINS.search(text):
        return at
    starts = np.fromiter((match.start() for match in _CLUSTER.finditer(text)), np.int64)
    return np.append(at[starts], at[-1])


def cluster_start(text: str, begin: int, position: int) -> int:
    """The last place in `text` at or before `position` at which a grapheme cluster begins, both in characters.

    Args:
        begin: where one begins for certain. If the cluster at `position` begins there, `begin` is returned.
    """
    if not begin < position < len(text) or not _JOINS.search(text, position - 1, position + 1):
        return position
    # Whether a cluster begins at a place depends on what is before and on one character behind.
    start = begin
    for match in _CLUSTER.finditer(text[begin : position + 1]):
        start = begin + match.start()
    return start


@dataclass(frozen=True, eq=False)
class TextBoundaries:
    """The places of one text, in UTF-8 bytes.

    Attributes:
        characters: [m] int64, where characters begin, and the length of the text.
        clusters: [n] int64, the same for grapheme clusters, as of `cluster_boundaries`.
        starts, ends: [k] int64, white space between words, lines and so on: where it begins and ends. Both are the same
            behind a full stop of Chinese or Japanese.
        line_starts: [k] int64, where in it the last line begins, -1 where there is no line end.
        kinds: [k] int64, `Break` of each.
        indented: the text's lines are indented often enough that they mean something.
    """

    characters: np.ndarray
    clusters: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    line_starts: np.ndarray
    kinds: np.ndarray
    indented: bool

    @classmethod
    def of(cls, text: str) -> TextBoundaries:
        """Find the places of `text`, in linear time."""
        at, clusters = _byte_offsets(text), cluster_boundaries(text)
        found: list[tuple[int, int, int, int]] = []
        for match in _BREAK.finditer(text):
            wide = match[2] is None
            start, end = match.span(3 if wide else 2)
            line_ends = text.count("\n", start, end)
            if line_ends:
                kind = Break.LINE if line_ends == 1 else Break.PARAGRAPH
            else:
                kind = Break.SENTENCE if wide or match[1] is not None else Break.WORD
            found.append((start, end, text.rfind("\n", start, end) + 1 if line_ends else -1, kind))
        starts, ends, line_starts, kinds = np.array(found, dtype=np.int64).reshape(-1, 4).T
        broken = line_starts >= 0
        starts, ends, line_starts = at[starts], at[ends], np.where(broken, at[line_starts], -1)
        # A space that carries a mark belongs to the mark.
        ends = clusters[np.searchsorted(clusters, ends, side="right") - 1] if len(ends) else ends
        kept = (starts < ends) | ((starts == ends) & (kinds == Break.SENTENCE))
        indents = int((broken & (line_starts < ends)).sum())
        indented = indents > 0 and indents >= _INDENTED_SHARE * int(broken.sum())
        return cls(at, clusters, starts[kept], ends[kept], line_starts[kept], kinds[kept], indented)

    def kinds_at(self, places: np.ndarray) -> np.ndarray:
        """[n] int64: the `Break` at each of [n] places; white space counts from its begin to its end."""
        if not len(self.starts):
            return np.zeros(len(places), dtype=np.int64)
        index = np.searchsorted(self.starts, places, side="right") - 1
        inside = (index >= 0) & (places <= self.ends[index])
        return np.where(inside, self.kinds[index], Break.NONE)

    def resume(self, begin: int, cut: int) -> int:
        """Where the text goes on behind a piece from `begin` to `cut`: behind the white space at the cut, but at a line's
        start with its indentation. An indentation that is longer than a whole piece is lost."""
        index = int(np.searchsorted(self.starts, cut, side="right")) - 1
        if index < 0 or cut > self.ends[index]:
            return cut
        line_start = int(self.line_starts[index])
        return line_start if line_start > begin else int(self.ends[index])

    def first_line(self) -> int:
        """Where the first line that is not blank begins, its indentation included."""
        begins_blank = len(self.starts) > 0 and self.starts[0] == 0
        return max(0, int(self.line_starts[0])) if begins_blank else 0


def _byte_offsets(text: str) -> np.ndarray:
    """[len(text) + 1] int64: the UTF-8 byte at which each character begins, and the length."""
    if text.isascii():
        return np.arange(len(text) + 1)
    raw = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
    return np.append(np.flatnonzero((raw & 0xC0) != 0x80), len(raw))
