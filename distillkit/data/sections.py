"""Cutting long texts into sections where it hurts least: between paragraphs, lines, sentences, words, characters.

A section becomes a document: the unit that is never shared between splits and that the bootstrap draws. One long book
would otherwise be a single document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from distillkit.data.cleaning import clean_text, leading_blank_lines
from distillkit.data.text_boundaries import SENTENCE_END, WIDE_SENTENCE_END, cluster_start
from distillkit.interrupts import check_interrupted

_PARAGRAPH_END = re.compile(r"\n(?:[ \t]*\n)+")
_SENTENCE_END = re.compile(rf"{SENTENCE_END}\s+|{WIDE_SENTENCE_END}")
_WORD_END = re.compile(r"\s+")
# A cut is looked for in the last three quarters of the room, so that no kind of boundary makes tiny sections.
_SHORTEST = 4


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
    pending, line, inside_line = "", 1, False

    def section(piece: str) -> Iterator[tuple[int, str]]:
        nonlocal line, inside_line
        check_interrupted()
        # What is left of the white space at a cut inside a line is no indentation; a space that carries a mark is a letter.
        blanks = len(piece) - len(piece.lstrip(" \t")) if inside_line else 0
        text = clean_text(piece[cluster_start(piece, 0, blanks) :])
        if text:
            yield line + leading_blank_lines(piece), text
        line += piece.count("\n")
        inside_line = not piece.endswith("\n")

    for block in blocks:
        pending += block
        start = 0
        # With one character more, which says whether a cluster ends at the cut.
        while len(pending) - start > limit + 1:
            end = _cut(pending, start, limit)
            yield from section(pending[start:end])
            start = end
        pending = pending[start:]
    start = 0
    while start < len(pending):
        end = _cut(pending, start, limit)
        yield from section(pending[start:end])
        start = end


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
        # A space may be the one that carries a mark.
        end = cluster_start(text, start, start + end) if end else start
        if end > start:
            return end
    end = start + max(1, len(window))
    between = cluster_start(text, start, end)
    return between if between > start else end


def _last_end(boundary: re.Pattern[str], window: str, shortest: int) -> int:
    end = 0
    for match in boundary.finditer(window, shortest):
        end = match.end()
    return end
