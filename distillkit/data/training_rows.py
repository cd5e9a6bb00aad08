"""From prepared examples to what a training reads: one dictionary for each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distillkit.data.examples import ROW_COLUMNS

Row = dict[str, Any]
"""`id`, `student_ids`, `first_target`; white box: `teacher_ids`, `cache_index` and the columns of `AlignedRows`; black box:
`teacher_text`, whether the text is the teacher's."""


def white_box_rows(stored: Any, *, first_target: int, identical: bool) -> list[Row]:
    """The training part for white box.

    Args:
        stored: the data set that `data.examples.save_examples` wrote.
        first_target: the first token that is predicted: 1 where a start token stands in front.
        identical: both models read the same tokens, and rows are paired all the same.
    """
    columns = ["id", "student_ids", "teacher_ids", *ROW_COLUMNS]
    rows = [
        {**row, "first_target": first_target, "cache_index": index}
        for index, row in enumerate(stored.select_columns(columns).to_list())
    ]
    if identical:
        for row in rows:
            row |= _identical_rows(len(row["student_ids"]))
    return rows


def true_rows(stored: Any, *, first_target: int) -> list[Row]:
    """The texts themselves, for a training in which the teacher's distributions have no part."""
    rows = stored.select_columns(["id", "student_ids"]).to_list()
    return [{**row, "first_target": first_target, "teacher_text": False} for row in rows]


def teacher_token_ids(rows: Sequence[Row], *, same_tokenizer: bool) -> list[list[int]]:
    """What the teacher reads, text by text. With one tokenizer these are the student's very tokens."""
    return [row["student_ids" if same_tokenizer else "teacher_ids"] for row in rows]


def _identical_rows(inputs: int) -> dict[str, list[int]]:
    """Every row is the teacher's too, and both go on to the next."""
    rows, zeros = list(range(inputs - 1)), [0] * (inputs - 1)
    return dict(zip(ROW_COLUMNS, (rows, rows, zeros, list(range(1, inputs)), zeros), strict=True))
