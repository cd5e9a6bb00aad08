"""Documents to examples: pieces of at most so many tokens, the same bytes encoded for both models, rows aligned."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from distillkit.alignment.boundaries import shared_boundaries
from distillkit.alignment.encoding import Encoding
from distillkit.alignment.rows import aligned_rows
from distillkit.data.cut_places import CutPlaces
from distillkit.data.document import Document
from distillkit.data.examples import Example
from distillkit.data.packed import pack, unpack
from distillkit.data.read_texts import ReadingProblems, TextReader
from distillkit.data.text_boundaries import TextBoundaries
from distillkit.data.text_encoder import TextEncoder
from distillkit.errors import UsageError
from distillkit.interrupts import check_interrupted

# What goes to the tokenizers in one call, which cannot be interrupted: so many texts and characters (a single text may be
# longer).
_TEXTS_AT_ONCE = 64
_CHARACTERS_AT_ONCE = 1 << 18
# Less than this teaches nothing: the first token would be the only one with a context.
_FEWEST_TOKENS = 2
# How many tokens more a piece may take alone than inside its document before it has to be cut again.
_ROOM = 4


@dataclass
class BuildNotes:
    """What happened while building: texts that a tokenizer cannot read, and those with too little in them.

    Attributes:
        problems: which tokenizer could not read what, and what it changed.
    """

    inexact: int = 0
    too_short: int = 0
    problems: ReadingProblems = field(default_factory=ReadingProblems)

    def record(self) -> dict[str, int]:
        """Of data/stats.json, what else was counted."""
        return {}

    def lines(self) -> list[str]:
        """For people, what else was done to the texts."""
        return []

    def dropped_lines(self) -> list[str]:
        """For people, what else was left out."""
        return []


class ExampleBuilder:
    """Cuts documents where both tokenizers have a boundary, and encodes each piece for both.

    Args:
        student: how the student reads.
        teacher: how the teacher reads; None where it has the student's tokenizer.
        align: whether rows of the two are to be paired (white box across tokenizers).
        seed: which pieces of a long document are taken.
        around: has the start and end tokens that the teacher reads; default: those of `teacher`, else of `student`.
    """

    def __init__(
        self,
        student: TextEncoder,
        teacher: TextEncoder | None,
        *,
        align: bool,
        seed: int,
        around: TextEncoder | None = None,
    ) -> None:
        self.student = student
        self.teacher = teacher
        self.around = around or teacher or student
        self.align = align and teacher is not None
        self.seed = seed
        self.reader = TextReader(student, teacher)
        self.notes = BuildNotes(problems=self.reader.problems)

    def build(self, documents: Sequence[Document], wanted: int) -> Iterator[Example]:
        """At most `wanted` examples, spread evenly over the documents.

        Of a long document random pieces are taken, only as many as are needed: many documents say more of a language,
        and of a score's uncertainty, than many pieces of few.
        """
        built = 0
        # Compressed: with long documents these are most of all texts.
        left: list[tuple[int, bytes, bool, int]] = []
        spare: list[Example] = []
        for portion in _portions([len(document.text) for document in documents]):
            check_interrupted()
            now: list[tuple[int, str, bool]] = []
            room: dict[int, int] = {}
            cut = self._cut_all([document.text for document in documents[portion]])
            for number, texts in enumerate(cut, portion.start):
                each = room[number] = share_of(wanted, len(documents), number)
                last = len(texts) - 1
                ends = documents[number].ends_text
                pieces = [(number, text, ends and index == last) for index, text in enumerate(texts)]
                random.Random(f"{self.seed}/{number}").shuffle(pieces)
                now += pieces[:each]
                left += [(number, pack(text), ends, len(text)) for number, text, ends in pieces[each:]]
            for example in self._encode(now):
                if room[example.document] == 0:
                    # Of a piece that had to be cut again there are more than were counted on.
                    spare.append(example)
                    continue
                yield example
                room[example.document] -= 1
                built += 1
                if built == wanted:
                    return
        # Some documents were too short to give their part: the others give more.
        random.Random(self.seed).shuffle(left)
        for portion in _portions([size for *_, size in left]):
            check_interrupted()
            for example in self._encode([(number, unpack(text), ends) for number, text, ends, _ in left[portion]]):
                yield example
                built += 1
                if built == wanted:
                    return
        yield from spare[: wanted - built]

    # --- cutting ---

    def _cut_all(self, texts: list[str]) -> list[list[str]]:
        pieces = []
        for read in self.reader.read(texts, whole=True):
            if read is None:
                self.notes.inexact += 1
                pieces.append([])
            else:
                pieces.append(self._pieces(read.text, read.student, read.teacher))
        return pieces

    def _fits(self, student: Encoding, teacher: Encoding) -> bool:
        teacher_limit = self.teacher.limit if self.teacher else self.student.limit
        return len(student.ids) <= self.student.limit and len(teacher.ids) <= teacher_limit

    def _pieces(self, text: str, student: Encoding, teacher: Encoding) -> list[str]:
        if self._fits(student, teacher):
            return [text]
        limits = [encoder.limit for encoder in (self.student, self.teacher) if encoder is not None]
        # Alone a piece takes a few tokens more than inside its document: its first word has lost the space before it.
        return self._cut(text, student, teacher, [max(1, limit - min(_ROOM, limit // 8)) for limit in limits])

    def _halves(self, text: str, student: Encoding, teacher: Encoding) -> list[str]:
        counts = [len(student.ids), len(teacher.ids)] if self.teacher else [len(student.ids)]
        # A little more than half, as the cut is before it and the rest shall be one piece.
        limits = [max(1, min(count - 1, math.ceil(count / 2) + count // 16 + 2)) for count in counts]
        return self._cut(text, student, teacher, limits)

    def _cut(self, text: str, student: Encoding, teacher: Encoding, limits_in_tokens: Sequence[int]) -> list[str]:
        encodings = [student, teacher] if self.teacher else [student]
        limits_alone = [encoder.limit for encoder in (self.student, self.teacher) if encoder is not None]
        raw = text.encode("utf-8")
        shared = student.ends
        if self.teacher is not None:
            shared = shared[shared_boundaries(student.ends, teacher.ends)[0]]
        boundaries = TextBoundaries.of(text)
        places = CutPlaces(boundaries, shared)
        pieces, begin = [], boundaries.first_line()
        while begin < len(raw):
            reach = _reach(encodings, limits_in_tokens, begin)
            if reach < len(raw):
                reach = places.cut(begin, reach, _reach(encodings, limits_alone, begin))
            piece = raw[begin:reach].decode("utf-8").rstrip()
            if piece:
                pieces.append(piece)
            begin = boundaries.resume(begin, reach)
        return pieces

    # --- encoding ---

    def _encode(self, pieces: list[tuple[int, str, bool]]) -> Iterator[Example]:
        found = self.reader.read([text for _, text, _ in pieces], whole=False)
        for (document, _, ends), read in zip(pieces, found, strict=True):
            if read is None:
                self.notes.inexact += 1
                continue
            text, student, teacher = read.text, read.student, read.teacher
            if len(student.ids) < _FEWEST_TOKENS:
                self.notes.too_short += 1
                continue
            if not self._fits(student, teacher):
                # Into halves: a piece that just fits would leave a stub of a few tokens.
                again = self._halves(text, student, teacher)
                if again == [text]:
                    raise UsageError(
                        f"the character {text!r} alone takes more tokens than an example may have",
                        hint="raise --max-length",
                    )
                last = len(again) - 1
                yield from self._encode([(document, part, ends and index == last) for index, part in enumerate(again)])
                continue
            yield self.example(document, text, ends, student, teacher)

    def example(
        self,
        document: int,
        text: str,
        ends: bool,
        student: Encoding,
        teacher: Encoding,
        *,
        teacher_ends: bool | None = None,
    ) -> Example:
        """The example of a text that both have read.

        Args:
            ends: whether the text really ends there.
            teacher_ends: whether that of the teacher does; default: like the student's.
        """
        rows, teacher_ends = None, ends if teacher_ends is None else teacher_ends
        if self.align:
            rows = aligned_rows(
                student, teacher, text.encode("utf-8"),
                student_start=self.student.start_id is not None, teacher_start=self.around.start_id is not None,
                student_has_eos=self.student.adds_end(student.ids, ends),
                teacher_has_eos=self.around.adds_end(teacher.ids, teacher_ends),
            )  # fmt: skip
        return Example(
            document=document, text=text, bytes=len(text.encode("utf-8")), ends_text=ends,
            student_ids=self.student.with_specials(student.ids, ends),
            teacher_ids=self.around.with_specials(teacher.ids, teacher_ends),
            student_tokens=len(student.ids), teacher_tokens=len(teacher.ids), rows=rows,
        )  # fmt: skip


def share_of(wanted: int, documents: int, number: int) -> int:
    """How many of `wanted` examples document `number` of so many is asked for; the shares differ by one at most, and
    where there are more documents than examples the first ones suffice."""
    if wanted <= documents:
        return 1
    return (number + 1) * wanted // documents - number * wanted // documents


def _portions(sizes: Sequence[int]) -> Iterator[slice]:
    """Consecutive slices of texts of so many characters, each small enough for one call of a tokenizer."""
    start = size = 0
    for index, characters in enumerate(sizes):
        if index > start and (index - start == _TEXTS_AT_ONCE or size + characters > _CHARACTERS_AT_ONCE):
            yield slice(start, index)
            start, size = index, 0
        size += characters
    if start < len(sizes):
        yield slice(start, len(sizes))


def _reach(encodings: Sequence[Encoding], limits: Sequence[int], begin: int) -> int:
    """The byte up to which every encoding takes no more tokens than its limit, counted from the byte `begin`."""
    reach = []
    for encoding, limit in zip(encodings, limits, strict=True):
        first = int(np.searchsorted(encoding.ends, begin, side="right"))
        reach.append(int(encoding.ends[min(first + limit, len(encoding.ends)) - 1]))
    return min(reach)
