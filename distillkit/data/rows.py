"""Rows of a file -> documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from distillkit.data.cleaning import clean_text
from distillkit.data.conversation import Conversation
from distillkit.data.document import Document
from distillkit.data.notes import ReadingNotes
from distillkit.data.sections import byte_length, cut_sections


class Row(NamedTuple):
    """One text of a file.

    Attributes:
        text: as it stands there.
        origin: where it stands: "people.csv:12".
        ends_text: False where a longer text was cut here.
        conversation: the turns, where the row is a conversation; `text` is then its canonical form.
    """

    text: str
    origin: str
    ends_text: bool = True
    conversation: Conversation | None = None


def row_documents(rows: Iterable[Row], section_bytes: int, notes: ReadingNotes) -> Iterator[Document]:
    """A document for each row that is not blank; a long text becomes several, "…:7", "…:7#2" and so on.

    A conversation is one document, however long it is.
    """
    for row in rows:
        if row.conversation is not None:
            yield Document(row.text, row.origin, row.ends_text, row.conversation)
            continue
        text = clean_text(row.text)
        if not text:
            notes.count("blank rows left out")
        elif byte_length(text) <= section_bytes:
            yield Document(text, row.origin, row.ends_text)
        else:
            yield from section_documents(text, row.origin, section_bytes, ends_text=row.ends_text)


def article_documents(rows: Iterable[Row], section_bytes: int, notes: ReadingNotes) -> Iterator[Document]:
    """A document for each article of a set whose rows are lines of articles: its rows, without blanks and headings.

    A title (a heading with one mark) begins a new article; a long article becomes several documents.
    """
    lines: list[str] = []
    origin = ""
    for row in rows:
        text = clean_text(row.text).strip()
        depth = heading_depth(text)
        if depth:
            notes.count("headings left out")
        elif not text:
            notes.count("blank rows left out")
        else:
            origin = origin or row.origin
            lines.append(text)
        if depth == 1 and lines:
            yield from section_documents("\n".join(lines), origin, section_bytes)
            lines, origin = [], ""
    if lines:
        yield from section_documents("\n".join(lines), origin, section_bytes)


def heading_depth(text: str) -> int:
    """1 for `= Title =`, 2 for `= = Section = =` and so on: as many marks on the right as on the left; 0 for no heading."""
    marks = text[: len(text) - len(text.lstrip("= "))]
    depth = marks.count("=")
    title = text[len(marks) :]
    left = "= " * depth
    # One letter at least between the marks.
    if not depth or marks != left or not title.strip() or title[0].isspace() or not title[1:].endswith(left[::-1]):
        return 0
    return depth


def section_documents(text: str, origin: str, section_bytes: int, *, ends_text: bool = True) -> Iterator[Document]:
    """A text as documents of at most `section_bytes` bytes: "…:7", "…:7#2" and so on."""
    for number, section in enumerate(cut_sections(text, section_bytes), 1):
        is_end = section.is_last and ends_text
        yield Document(section.text, origin if number == 1 else f"{origin}#{number}", is_end)
