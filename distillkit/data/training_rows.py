"""From prepared examples to what a training reads: one dictionary for each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distillkit.data.examples import ROW_COLUMNS, stored_rows
from distillkit.data.stored_rows import Rows, StoredRows

Row = dict[str, Any]
"""`id`, `student_ids`, `first_target`; of a conversation `target_spans`, the ranges [begin, end) of its tokens that are targets
(absent: all from `first_target` on); white box: `teacher_ids`, of a conversation `teacher_target_spans`, `cache_index` and the columns of `AlignedRows`; black box:
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
        without_missing(row)
        row["cache_index"] = index
        if identical:
            row |= identical_rows(
                len(row["student_ids"]), len(row["teacher_ids"]), start_shift, row.get("target_spans")
            )

    columns = ["id", "student_ids", "teacher_ids", *ROW_COLUMNS, "target_spans", "teacher_target_spans"]
    return stored_rows(stored, columns, {"first_target": first_target}, complete)


def target_tokens(row: Row) -> np.ndarray:
    """[T] whether each of `student_ids` is a target of the training: of a conversation those of its answers alone."""
    tokens = np.arange(len(row["student_ids"]))
    targets = tokens >= max(1, int(row["first_target"]))
    if row.get("target_spans") is not None:
        inside = np.zeros(len(tokens), dtype=bool)
        for first, last in row["target_spans"]:
            inside[first:last] = True
        targets &= inside
    return targets


def true_rows(stored: Any, *, first_target: int) -> StoredRows:
    """The texts themselves, for a training in which the teacher's distributions have no part."""
    fixed = {"first_target": first_target, "teacher_text": False}
    return stored_rows(stored, ["id", "student_ids", "target_spans"], fixed, without_missing)


def tuning_rows(rows: StoredRows, *, first_target: int) -> StoredRows:
    """The training part for the teacher itself: what it reads takes the student's place.

    Args:
        rows: of `white_box_rows`.
        first_target: the first token that the teacher predicts: 1 where its start token stands in front.
    """
    names = {"id": "id", "student_ids": "teacher_ids", "target_spans": "teacher_target_spans"}
    return rows.of_columns(names, {"first_target": first_target, "teacher_text": False}, without_missing)


def teacher_token_ids(rows: Rows) -> Sequence[list[int]]:
    """What the teacher reads, text by text. With one tokenizer these are the student's tokens, inside the teacher's own
    start and end tokens."""
    return rows.lists("teacher_ids")


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


def without_missing(row: Row, index: int = 0) -> None:
    """Leave out the columns of conversations where a row is none."""
    for name in ("target_spans", "teacher_target_spans"):
        if name in row and row[name] is None:
            del row[name]


def identical_rows(
    student_inputs: int, teacher_inputs: int, start_shift: int, target_spans: Spans | None
) -> dict[str, list[int]]:
    """Every row that predicts a target is the teacher's too, and both go on to the next."""
    students, teachers = same_rows(student_inputs, teacher_inputs, start_shift, target_spans)
    zeros = [0] * len(students)
    columns = (students, teachers, zeros, [row + 1 for row in teachers], zeros)
    return dict(zip(ROW_COLUMNS, columns, strict=True))
