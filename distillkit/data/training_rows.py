"""From prepared examples to what a training reads: one dictionary for each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distillkit.data.examples import ROW_COLUMNS

Row = dict[str, Any]
"""`id`, `student_ids`, `first_target`; of a conversation `target_spans`, the ranges [begin, end) of its tokens that are targets
(absent: all from `first_target` on); white box: `teacher_ids`, of a conversation `teacher_target_spans`, `cache_index` and the columns of `AlignedRows`; black box:
`teacher_text`, whether the text is the teacher's."""


def white_box_rows(stored: Any, *, first_target: int, identical: bool, start_shift: int = 0) -> list[Row]:
    """The training part for white box.

    Args:
        stored: the data set that `data.examples.save_examples` wrote.
        first_target: the first token that is predicted: 1 where a start token stands in front.
        identical: both models read the same tokens, and rows are paired all the same.
        start_shift: of such rows, by how many tokens the teacher is ahead (`TextEncoders.start_shift`).
    """
    columns = ["id", "student_ids", "teacher_ids", *ROW_COLUMNS, "target_spans", "teacher_target_spans"]
    rows = [
        {**_of_text(row), "first_target": first_target, "cache_index": index}
        for index, row in enumerate(stored.select_columns(columns).to_list())
    ]
    if identical:
        for row in rows:
            row |= _identical_rows(
                len(row["student_ids"]), len(row["teacher_ids"]), start_shift, row.get("target_spans")
            )
    return rows


def true_rows(stored: Any, *, first_target: int) -> list[Row]:
    """The texts themselves, for a training in which the teacher's distributions have no part."""
    rows = stored.select_columns(["id", "student_ids", "target_spans"]).to_list()
    return [{**_of_text(row), "first_target": first_target, "teacher_text": False} for row in rows]


def tuning_rows(rows: Sequence[Row], *, first_target: int) -> list[Row]:
    """The training part for the teacher itself: what it reads takes the student's place.

    Args:
        rows: of `white_box_rows`.
        first_target: the first token that the teacher predicts: 1 where its start token stands in front.
    """
    return [
        {
            "id": row["id"],
            "student_ids": row["teacher_ids"],
            "first_target": first_target,
            "teacher_text": False,
            **({"target_spans": row["teacher_target_spans"]} if "teacher_target_spans" in row else {}),
        }
        for row in rows
    ]


def teacher_token_ids(rows: Sequence[Row]) -> list[list[int]]:
    """What the teacher reads, text by text. With one tokenizer these are the student's tokens, inside the teacher's own
    start and end tokens."""
    return [row["teacher_ids"] for row in rows]


Spans = Sequence[Sequence[int]]


def same_rows(
    student_inputs: int, teacher_inputs: int, start_shift: int, target_spans: Spans | None = None
) -> tuple[list[int], list[int]]:
    """The rows at which two readings of the same tokens go on to the same token, or both to their end of the text.

    Args:
        student_inputs, teacher_inputs: what each reads, start and end tokens included.
        start_shift: `TextEncoders.start_shift`.
        target_spans: of a conversation, the student's tokens that are targets: other rows are none.

    Returns:
        The student's rows, and the teacher's.
    """
    first, last = max(0, -start_shift), min(student_inputs - 1, teacher_inputs - 1 - start_shift)
    rows = list(range(first, last))
    if target_spans is not None:
        # Row r predicts token r + 1.
        rows = [row for row in rows if any(begin <= row + 1 < end for begin, end in target_spans)]
    return rows, [row + start_shift for row in rows]


def _of_text(row: Row) -> Row:
    """A row without the columns of conversations, where it is none."""
    return {name: value for name, value in row.items() if value is not None}


def _identical_rows(
    student_inputs: int, teacher_inputs: int, start_shift: int, target_spans: Spans | None
) -> dict[str, list[int]]:
    """Every row that predicts a target is the teacher's too, and both go on to the next."""
    students, teachers = same_rows(student_inputs, teacher_inputs, start_shift, target_spans)
    zeros = [0] * len(students)
    columns = (students, teachers, zeros, [row + 1 for row in teachers], zeros)
    return dict(zip(ROW_COLUMNS, columns, strict=True))
