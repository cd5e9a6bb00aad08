"""From prepared examples to what a training reads: one dictionary for each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distillkit.data.examples import ROW_COLUMNS, stored_rows
from distillkit.data.stored_rows import Rows, StoredRows

Row = dict[str, Any]
"""`id`, `student_ids`, `first_target`; of a conversation `target_spans`, the ranges [begin, end) of its tokens that are targets
(absent: all from `first_target` on); white box: `teacher_ids`, `cache_index` and the columns of `AlignedRows`; black box:
`teacher_text`, whether the text is the teacher's."""


def white_box_rows(stored: Any, *, first_target: int, identical: bool, start_shift: int = 0) -> StoredRows:
    """The training part for white box.

    Args:
        stored: the data set that `data.examples.save_examples` wrote.
        first_target: the first token that is predicted: 1 where a start token stands in front.
        identical: both models read the same tokens, and rows are paired all the same.
        start_shift: of such rows, by how many tokens the teacher is ahead (`TextEncoders.start_shift`).
    """

    def complete(row: Row, index: int) -> None:
        row["cache_index"] = index
        if identical:
            row |= _identical_rows(len(row["student_ids"]), len(row["teacher_ids"]), start_shift)

    columns = ["id", "student_ids", "teacher_ids", *ROW_COLUMNS]
    return stored_rows(stored, columns, {"first_target": first_target}, complete)


def true_rows(stored: Any, *, first_target: int) -> StoredRows:
    """The texts themselves, for a training in which the teacher's distributions have no part."""
    return stored_rows(stored, ["id", "student_ids"], {"first_target": first_target, "teacher_text": False})


def tuning_rows(rows: StoredRows, *, first_target: int) -> StoredRows:
    """The training part for the teacher itself: what it reads takes the student's place.

    Args:
        rows: of `white_box_rows`.
        first_target: the first token that the teacher predicts: 1 where its start token stands in front.
    """
    names = {"id": "id", "student_ids": "teacher_ids"}
    return rows.of_columns(names, {"first_target": first_target, "teacher_text": False})


def teacher_token_ids(rows: Rows) -> Sequence[list[int]]:
    """What the teacher reads, text by text. With one tokenizer these are the student's tokens, inside the teacher's own
    start and end tokens."""
    return rows.lists("teacher_ids")


def same_rows(student_inputs: int, teacher_inputs: int, start_shift: int) -> tuple[range, range]:
    """The rows at which two readings of the same tokens go on to the same token, or both to their end of the text.

    Args:
        student_inputs, teacher_inputs: what each reads, start and end tokens included.
        start_shift: `TextEncoders.start_shift`.

    Returns:
        The student's rows, and the teacher's.
    """
    first, last = max(0, -start_shift), min(student_inputs - 1, teacher_inputs - 1 - start_shift)
    return range(first, last), range(first + start_shift, last + start_shift)


def _identical_rows(student_inputs: int, teacher_inputs: int, start_shift: int) -> dict[str, list[int]]:
    """Every row is the teacher's too, and both go on to the next."""
    students, teachers = same_rows(student_inputs, teacher_inputs, start_shift)
    zeros = [0] * len(students)
    columns = (list(students), list(teachers), zeros, [row + 1 for row in teachers], zeros)
    return dict(zip(ROW_COLUMNS, columns, strict=True))
