"""Which rows of a batch are trained on, and the teacher's logits in the student's columns.

A *row* is one position of the flattened [B·T] logits; row r predicts the token at r + 1. The labels of a batch are not
shifted: the objectives get rows and true tokens from `target_rows`.

Shapes: B texts, T positions, N target rows, U teacher columns.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor
from torch.nn import functional

IGNORED = -100  # The label of a token that is no target, as in torch's cross-entropy.


def target_rows(labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that have a target, and the targets.

    Args:
        labels_BT: [B, T] token ids in place (not shifted), -100 where a token is not a target.

    Returns:
        ([N] int64 indices into the flattened [B·T] rows, ascending, [N] int64 targets): row r predicts labels[r + 1].
    """
    following = functional.pad(labels_BT[:, 1:], (0, 1), value=IGNORED).flatten()
    rows = (following != IGNORED).nonzero().flatten()
    return rows, following[rows]


def next_ids(ids_BT: Tensor) -> np.ndarray:
    """[B·T] the id that each row predicts; -1 behind the last.

    Args:
        ids_BT: [B, T], on the processor.
    """
    ids = ids_BT.numpy()
    return np.concatenate([ids[:, 1:], np.full((len(ids), 1), -1)], axis=1).reshape(-1)


def restrict_columns(logits_NU: Tensor, common: Tensor, columns: int) -> Tensor:
    """Teacher logits in the student's columns: [N, columns], -inf for everything that is not common to both.

    Args:
        logits_NU: [N, U].
        common: [C] bool, ids that mean the same on both sides; beyond C nothing does.
        columns: the width of the student's head.
    """
    width = min(logits_NU.shape[1], len(common), columns)
    shared = logits_NU[:, :width].masked_fill(~common[:width].to(logits_NU.device), -math.inf)
    return functional.pad(shared, (0, columns - width), value=-math.inf)
