"""The rows that are trained on, and the teacher's logits in the student's columns."""

from __future__ import annotations

import torch

from distillkit.losses.target_rows import IGNORED, restrict_columns, target_rows


def test_a_row_predicts_the_next_token_of_its_own_text():
    labels = torch.tensor([[IGNORED, 5, 6], [7, IGNORED, 9]])
    rows, targets = target_rows(labels)
    # Flat rows 0..5; row 2 and row 5 end their texts, row 3 precedes an ignored token, and 7 is nobody's next token.
    assert rows.tolist() == [0, 1, 4]
    assert targets.tolist() == [5, 6, 9]


def test_labels_without_a_target():
    rows, targets = target_rows(torch.full((2, 3), IGNORED))
    assert rows.dtype == targets.dtype == torch.int64
    assert len(rows) == len(targets) == 0


def test_restricted_columns():
    logits = torch.arange(4.0)[None]
    common = torch.tensor([True, False, True])
    inf = torch.inf
    assert restrict_columns(logits, common, 5).tolist() == [[0, -inf, 2, -inf, -inf]]
    assert restrict_columns(logits, common, 2).tolist() == [[0, -inf]]
