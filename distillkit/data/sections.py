"""Cutting long texts into sections where it hurts least: between paragraphs, lines, sentences, words, characters.

A section becomes a document: the unit that is never shared between splits and that the bootstrap draws. One long book
would otherwise be a single document.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from distillkit.data.cleaning import clean_text, leading_blank_lines

_PARAGRAPH_END = re.compile(r"\n(?:[ \t]*\n)+")
_SENTENCE_END = re.compile(r"""[.!?…]["'”’»)\]]*\s+|[。！？]["'”’」』]*""")
_WORD_END = re.compile(r"\s+")
# A cut is looked for in the last three quarters of the room, so that no kind of boundary makes tiny sections.
_SHORTEST = 4
# More characters than any sensible grapheme cluster has.
_LONGEST_CLUSTER = 64
_ZERO_WIDTH_JOINER = "\u200d"


def byte_length(text: str) -> int:
    """Length in UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))


class Section(NamedTuple):
    """A piece of a text.

    Attributes:
        line: the line of the text on which it begins, from 1.
        text: clean, not empty.
        is_last: whether the text ends with it.
    """

    line: int
    text: str
    is_last: bool


def stream_sections(blocks: Iterable[str], limit: int) -> Iterator[Section]:
    """Cut a text that arrives in blocks into clean sections of at most `limit` UTF-8 bytes.

    Paragraphs are joined as long as they fit. Nothing but white space at the cuts is lost, and no more than a block
    and two sections are held at once.
    """
    previous: tuple[int, str] | None = None
    for section in _cut_blocks(blocks, limit):
        if previous is not None:
            yield Section(*previous, is_last=False)
        previous = section
    if previous is not None:
        yield Section(*previous, is_last=True)


def cut_sections(text: str, limit: int) -> list[Section]:
    """The sections of a whole text, of at most `limit` UTF-8 bytes each."""
    return list(stream_sections((text,), limit))


def _cut_blocks(blocks: Iterable[str], limit: int) -> Iterator[tuple[int, str]]:
    pending, line = "", 1
    for block in blocks:
        pending += block
        start = 0
        while len(pending) - start > limit + _LONGEST_CLUSTER:
            end = _cut(pending, start, limit)
            yield from _section(pending[start:end], line)
            line += pending.count("\n", start, end)
            start = end
        pending = pending[start:]
    start = 0
    while start < len(pending):
        end = _cut(pending, start, limit)
        yield from _section(pending[start:end], line)
        line += pending.count("\n", start, end)
        start = end


def _section(piece: str, line: int) -> Iterator[tuple[int, str]]:
    text = clean_text(piece)
    if text:
        yield line + leading_blank_lines(piece), text


def _cut(text: str, start: int, limit: int) -> int:
    """Where the section that begins at `start` ends: as late as `limit` bytes and the best kind of boundary allow."""
    window = text[start : start + limit]
    if not window.isascii():
        window = window.encode("utf-8")[:limit].decode("utf-8", "ignore")
    if start + len(window) >= len(text):
        return len(text)
    shortest = len(window) // _SHORTEST
    for boundary in (_PARAGRAPH_END, None, _SENTENCE_END, _WORD_END):
        end = window.rfind("\n", shortest) + 1 if boundary is None else _last_end(boundary, window, shortest)
        if end > 0:
            return start + end
    return _between_characters(text, start, start + max(1, len(window)))


def _last_end(boundary: re.Pattern[str], window: str, shortest: int) -> int:
    end = 0
    for match in boundary.finditer(window, shortest):
        end = match.end()
    return end


def _between_characters(text: str, start: int, end: int) -> int:
    """`end`, or a little before it where it would separate a letter from its marks or the members of a joined emoji."""
    for position in range(end, max(start, end - _LONGEST_CLUSTER), -1):
        following = text[position]
        extends = unicodedata.category(following).startswith("M") or "\U0001f3fb" <= following <= "\U0001f3ff"
        if not extends and _ZERO_WIDTH_JOINER not in (following, text[position - 1]):
            return position
    return end
