"""Where a student can be held to its teacher on held-out texts, and to what: the rows at which both predict the same, and the
teacher's distribution there in the student's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillkit.alignment.rows import within
from distillkit.alignment.token_bytes import common_ids
from distillkit.data.examples import ROW_COLUMNS
from distillkit.data.stored_rows import Rows
from distillkit.data.text_encoder import TextEncoders
from distillkit.data.training_rows import same_rows
from distillkit.evaluation.agreement import LogTarget
from distillkit.evaluation.comparison import ComparedText
from distillkit.evaluation.held_out import scored_texts
from distillkit.losses.target_rows import restrict_columns
from distillkit.losses.tempered import temper
from distillkit.teachers.common_targets import OwnEnds
from distillkit.teachers.prefix_targets import prefix_map_of


def compared_texts(examples: Rows, encoders: TextEncoders, same_tokenizer: bool) -> list[ComparedText] | None:
    """The test texts as both models read them, with the rows at which both predict the same; None where there are none, as in
    black box across tokenizers."""
    if encoders.student.table is None or encoders.teacher.table is None:
        return None
    students = scored_texts(examples, encoders.student, "student")
    teachers = scored_texts(examples, encoders.teacher, "teacher")
    texts = [
        ComparedText(student, teacher, *_paired_rows(example, encoders, same_tokenizer))
        for example, student, teacher in zip(examples, students, teachers, strict=True)
    ]
    return texts if any(len(text.student_rows) for text in texts) else None


def _paired_rows(
    example: dict[str, Any], encoders: TextEncoders, same_tokenizer: bool
) -> tuple[Sequence[int], Sequence[int]]:
    """The rows of student and teacher at which both predict the same."""
    if same_tokenizer:
        ids = example["student_ids"], example["teacher_ids"]
        students, teachers = same_rows(len(ids[0]), len(ids[1]), encoders.start_shift, example["target_spans"])
        ends = OwnEnds.of(encoders)
        if ends is not None and ends.parse and ends.move is not None and (ids[0][-1], ids[1][-1]) == ends.move[::-1]:
            # Inside these texts the teacher's end token stands for itself, at their end for the student's.
            students, teachers = students[:-1], teachers[:-1]
        return students, teachers
    # Elsewhere the teacher's distribution over the student's tokens depends on what follows.
    columns = [np.array(example[name], dtype=np.int64) for name in ROW_COLUMNS]
    keep = within(*columns[1:])
    return columns[0][keep].tolist(), columns[1][keep].tolist()


def teacher_log_target(encoders: TextEncoders, device: torch.device, same_tokenizer: bool) -> LogTarget:
    """The teacher's distributions over the student's tokens."""
    if same_tokenizer:
        student_table, teacher_table = encoders.student.table, encoders.teacher.table
        assert student_table is not None
        assert teacher_table is not None
        common = torch.from_numpy(common_ids(teacher_table, student_table)).to(device)
        ends = OwnEnds.of(encoders)

        def log_target(teacher_logits: Tensor, columns: int) -> Tensor:
            restricted = restrict_columns(teacher_logits, common, columns)
            if ends is not None and not ends.parse and (theirs := ends.teacher_column(teacher_logits)) is not None:
                restricted = ends.moved(restricted, theirs)
            return temper(restricted, 1.0)
    else:
        prefix_map = prefix_map_of(encoders).to(device)

        def log_target(teacher_logits: Tensor, columns: int) -> Tensor:
            return prefix_map.project(teacher_logits, columns).log_target

    return log_target
