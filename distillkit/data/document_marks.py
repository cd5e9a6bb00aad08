"""Running text in which `<|endoftext|>` and its relatives part documents: each part is a document that ends there.

A mark counts where documents are parted: alone on a line, or at the end or the beginning of one. Elsewhere, in fenced code
of Markdown, and where `</s>` closes an `<s>` (struck-out text in HTML), it is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

# End-of-text tokens of the usual families, whose names stand in corpora that were prepared for training.
END_MARKS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<｜end▁of▁sentence｜>")
# End a turn of a chat, not a text: a rendered chat is one document.
_TURN_ENDS = re.compile(
    r"<\|im_end\|>|<\|?(?:eot|eom|end)(?:_id)?\|?>|.*(?:end_of_turn|turn|message|im_sep).*", re.IGNORECASE
)
_STRIKES = re.compile(r"<s\b[^>]*>|</s>")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
# Of a line without an end only its beginning is looked at for a mark, and so much is held back for one at its end.
_LONGEST_LINE = 1 << 20
_HELD_BACK = 256


def end_marks(own: Iterable[str | None]) -> tuple[str, ...]:
    """The marks that end a document.

    Args:
        own: the end-of-text tokens of the models; those that end a chat's turn do not count.
    """
    named = [name for name in own if name and name.strip() and not _TURN_ENDS.fullmatch(name)]
    return tuple(dict.fromkeys([*END_MARKS, *named]))


@dataclass(frozen=True)
class Part:
    """A document of a file of running text.

    Attributes:
        line: the line of the file on which it begins, from 1.
        blocks: its text; to be read before the next part is asked for.
    """

    line: int
    blocks: Iterator[str]


@dataclass
class MarkCount:
    """How often documents were parted at a mark."""

    times: int = 0


def parted(blocks: Iterable[str], marks: Sequence[str], count: MarkCount, *, markdown: bool = False) -> Iterator[Part]:
    """Part a text that arrives in blocks at its marks; the marks are no text. Parts may be blank.

    Args:
        count: takes how often.
        markdown: marks in fenced code are text.
    """
    pieces = _Pieces(blocks, marks, markdown)
    while not pieces.is_over:
        yield Part(pieces.line, pieces.until_mark(count))
        for _ in pieces.rest():
            pass


class _Pieces:
    """Text and marks in their order; None stands for a mark."""

    def __init__(self, blocks: Iterable[str], marks: Sequence[str], markdown: bool) -> None:
        self._search = _MarkSearch(marks, markdown)
        self._pieces = self._search.pieces(blocks)
        self._current: Iterator[str] = iter(())
        self.line = 1
        self.is_over = False

    def until_mark(self, count: MarkCount) -> Iterator[str]:
        self._current = self._until_mark(count)
        return self._current

    def rest(self) -> Iterator[str]:
        """What was not read of the current part."""
        return self._current

    def _until_mark(self, count: MarkCount) -> Iterator[str]:
        for piece in self._pieces:
            if piece is None:
                count.times += 1
                return
            self.line += piece.count("\n")
            yield piece
        self.is_over = True


class _MarkSearch:
    """Finds the marks line by line, and passes on at once what holds none."""

    def __init__(self, marks: Sequence[str], markdown: bool) -> None:
        self.marks = tuple(sorted(marks, key=len, reverse=True))
        either = "|".join(map(re.escape, self.marks))
        self.at_begin = re.compile(rf"[ \t]*({either})")
        self.at_end = re.compile(rf"({either})[ \t]*\Z")
        self.markdown = markdown
        self.fence = ""
        self.struck = False

    def pieces(self, blocks: Iterable[str]) -> Iterator[str | None]:
        tail, continued = "", False
        for block in blocks:
            tail += block
            end = tail.rfind("\n") + 1
            if end:
                yield from self._lines(tail[:end], continued)
                tail, continued = tail[end:], False
            if len(tail) > _LONGEST_LINE:
                whole, tail = tail[:-_HELD_BACK], tail[-_HELD_BACK:]
                yield from self._line(whole, continued, unfinished=True)
                continued = True
        if tail:
            yield from self._line(tail, continued)

    def _lines(self, text: str, continued: bool) -> Iterator[str | None]:
        """Whole lines."""
        if not any(mark in text for mark in self.marks):
            self._follow(text)
            yield text
            return
        for line in re.findall(r"[^\n]*\n", text):
            yield from self._line(line, continued)
            continued = False

    def _line(self, line: str, continued: bool, *, unfinished: bool = False) -> Iterator[str | None]:
        body = line[:-1] if line.endswith("\n") else line
        line_end = line[len(body) :]
        if not any(mark in body for mark in self.marks):
            self._follow(line)
            yield line
            return
        if self.fence:
            self._follow(line)
            yield line
            return
        while not continued and (match := self.at_begin.match(body)) and self._ends(body, match.start(1)):
            yield None
            body = body[match.end() :]
        trailing = 0
        while not unfinished and (match := self.at_end.search(body)) and self._ends(body, match.start(1)):
            trailing += 1
            body = body[: match.start()]
        self._follow(body)
        # The break of a line that was nothing but marks stays: it counts as a line, and blank edges are no text.
        if body or not trailing:
            yield body + ("" if trailing else line_end)
        yield from [None] * trailing
        if trailing and line_end:
            yield line_end

    def _ends(self, body: str, at: int) -> bool:
        """Whether the mark at `at` parts documents: not the end of struck-out text."""
        if not body.startswith("</s>", at):
            return True
        struck = self.struck
        for tag in _STRIKES.finditer(body[:at]):
            struck = tag.group() != "</s>"
        return not struck

    def _follow(self, text: str) -> None:
        """Keep in mind whether a fence or struck-out text is open."""
        if "<s" in text or "</s>" in text:
            for tag in _STRIKES.finditer(text):
                self.struck = tag.group() != "</s>"
        if not self.markdown or ("```" not in text and "~~~" not in text):
            return
        for line in text.split("\n"):
            if (match := _FENCE.match(line)) is None:
                continue
            if not self.fence:
                self.fence = match[1]
            elif match[1].startswith(self.fence) and not line[match.end() :].strip():
                self.fence = ""
