"""The examples of a run as a further teacher reads them: texts and the student's side stay what they are.

Pieces were cut for the student and the first teacher. Where a further one cannot read a text, or its context is too short, it says
nothing there, and the others teach alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distillkit.alignment.encoding import Encoding
from distillkit.alignment.rows import AlignedRows
from distillkit.data.conversation import Conversation
from distillkit.data.conversation_examples import ConversationExampleBuilder
from distillkit.data.example_builder import ExampleBuilder
from distillkit.data.examples import Example
from distillkit.data.stored_rows import Rows
from distillkit.interrupts import check_interrupted

_TEXTS_AT_ONCE = 64


@dataclass
class FurtherReading:
    """Reads examples once more.

    Args:
        builder: of the student and the further teacher.
        shortens: whether of a text that is too long for this teacher its beginning is read; else nothing is.

    Attributes:
        unread: examples that this teacher does not read.
        shortened: those of which it reads the beginning alone.
    """

    builder: ExampleBuilder | ConversationExampleBuilder
    shortens: bool
    unread: int = 0
    shortened: int = 0

    def read(self, rows: Rows) -> Iterator[Example]:
        """An example for each row, in their order.

        Args:
            rows: as `data.examples.stored_rows` gives them.
        """
        for first in range(0, len(rows), _TEXTS_AT_ONCE):
            check_interrupted()
            portion = list(rows[first : first + _TEXTS_AT_ONCE])
            if isinstance(self.builder, ConversationExampleBuilder):
                found = [self._conversation(self.builder, row) for row in portion]
            else:
                found = self._texts(self.builder, portion)
            for row, example in zip(portion, found, strict=True):
                yield self._with_students_side(row, example)

    def _texts(self, builder: ExampleBuilder, rows: Sequence[Mapping[str, Any]]) -> list[Example | None]:
        texts = [row["text"] for row in rows]
        students = builder.student.encode(texts)
        teachers = students if builder.teacher is None else builder.teacher.encode(texts)
        return [
            None if student is None or teacher is None else self._text(builder, row, student, teacher)
            for row, student, teacher in zip(rows, students, teachers, strict=True)
        ]

    def _text(
        self, builder: ExampleBuilder, row: Mapping[str, Any], student: Encoding, teacher: Encoding
    ) -> Example | None:
        ends, limit = row["ends_text"], (builder.teacher or builder.student).limit
        teacher_ends = ends
        if len(teacher.ids) > limit:
            beginning = _beginning(teacher, student, limit) if self.shortens else None
            if beginning is None:
                return None
            self.shortened += 1
            teacher, teacher_ends = beginning, False
        return builder.example(row["document"], row["text"], ends, student, teacher, teacher_ends=teacher_ends)

    def _conversation(self, builder: ConversationExampleBuilder, row: Mapping[str, Any]) -> Example | None:
        turns = Conversation.from_canonical(row["text"]).turns
        return builder.read_again(row["document"], turns, cut=not row["ends_text"])

    def _with_students_side(self, row: Mapping[str, Any], example: Example | None) -> Example:
        if example is not None and example.student_ids == row["student_ids"]:
            return replace(example, target_spans=row["target_spans"])
        self.unread += 1
        return _unread(row, self.builder)


def _beginning(teacher: Encoding, student: Encoding, limit: int) -> Encoding | None:
    """The first tokens of a reading, at most `limit`, up to where the student has a boundary too; None where that is nowhere."""
    shared = np.flatnonzero(np.isin(teacher.ends[:limit], student.ends))
    if not len(shared):
        return None
    count = int(shared[-1]) + 1
    return Encoding(
        teacher.ids[:count],
        teacher.ends[:count],
        teacher.dummy_space,
        None if teacher.unlike is None else teacher.unlike[:count],
        {place: name for place, name in teacher.names.items() if place < count},
    )


def _unread(row: Mapping[str, Any], builder: ExampleBuilder | ConversationExampleBuilder) -> Example:
    """A text of which the teacher reads one token, as no model reads nothing, and has no row that is paired."""
    if isinstance(builder, ConversationExampleBuilder):
        encoder = (builder.teacher or builder.student).encoder
    else:
        encoder = builder.around
    spans = row["target_spans"]
    positions = len(row["student_ids"]) - 1 if spans is None else sum(end - begin for begin, end in spans)
    none = np.zeros(0, dtype=np.int64)
    return Example(
        document=row["document"], text=row["text"], bytes=0, ends_text=row["ends_text"], student_ids=row["student_ids"],
        teacher_ids=[0 if encoder.start_id is None else encoder.start_id],
        student_tokens=row["student_tokens"], teacher_tokens=0,
        rows=AlignedRows(none, none, none, none, none, positions, 0, 0, row["bytes"], 0),
        target_spans=spans, **({} if spans is None else {"teacher_target_spans": [], "student_scored": [], "teacher_scored": []}),
    )  # fmt: skip


def coverage(rows: Rows, paired: Sequence[Rows], *, everywhere: bool) -> dict[str, float]:
    """How much of the student's predictions the teachers guide together: `any` of them, and `all`.

    Args:
        rows: the examples.
        paired: the same as each teacher reads them whose rows are paired with the student's; with the columns of `AlignedRows`.
        everywhere: whether there is another one, which reads the student's tokens and guides all of them.
    """
    positions = by_any = by_all = 0
    for number in range(len(rows)):
        row = rows[number]
        spans = row["target_spans"]
        size = len(row["student_ids"]) - 1 if spans is None else sum(end - begin for begin, end in spans)
        guided = [set(of_teacher.value("student_rows", number)) for of_teacher in paired]
        positions += size
        by_any += size if everywhere else len(set().union(*guided))
        by_all += len(guided[0].intersection(*guided[1:])) if guided else size
    whole = max(1, positions)
    return {"any": by_any / whole, "all": by_all / whole}
