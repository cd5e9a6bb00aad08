"""The distillation objective  L = (α·Σ τ²·D(p_τ ‖ q_τ) + β·Σ CE(q, y)) / N  (Hinton et al. 2015, arXiv 1503.02531).

This is the plain form, on whole logits: what `losses.chunked` computes piece by piece is checked against it, in the
tests and in the self-tests that `check-env --run-tests` runs on the user's machine.

The functions here return sums over rows; the caller divides once, by the number N of targets in the whole optimizer
step (all micro-batches, all processes). A mean per micro-batch would weigh tokens by the accident of their batch.

Shapes: B texts, T positions, V student columns, U teacher columns, N target rows, R aligned rows. A *row* is one
position of the flattened [B·T] logits; row r predicts the token at r + 1, and `target_rows` is the only place where
that shift is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from distillkit.losses.tempered import SoftLoss

IGNORED = -100


@dataclass(frozen=True)
class DistillationTerms:
    """The two terms of the objective as sums, not yet weighted or divided.

    Attributes:
        soft_sum: [] Σ over `soft_rows` rows of τ²·D(p_τ ‖ q_τ), nats.
        hard_sum: [] Σ over `hard_rows` rows of the cross-entropy with the true token, nats.
    """

    soft_sum: Tensor
    hard_sum: Tensor
    soft_rows: int
    hard_rows: int


def target_rows(labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that have a target, and the targets.

    Args:
        labels_BT: [B, T] token ids in place (not shifted), -100 where a token is not a target.

    Returns:
        ([N] int64 indices into the flattened [B·T] rows, [N] int64 targets): row r predicts labels[r + 1].
    """
    following = functional.pad(labels_BT[:, 1:], (0, 1), value=IGNORED).flatten()
    rows = (following != IGNORED).nonzero().flatten()
    return rows, following[rows]


def hard_terms(student_logits_BTV: Tensor, labels_BT: Tensor) -> DistillationTerms:
    """Cross-entropy only, where there is no teacher distribution: `soft_sum` is zero."""
    rows, targets = target_rows(labels_BT)
    logits_NV = _rows(student_logits_BTV, rows)
    return DistillationTerms(_wide(logits_NV[:0]).sum(), _cross_entropy_sum(logits_NV, targets), 0, len(rows))


def same_vocabulary_terms(
    student_logits_BTV: Tensor,
    labels_BT: Tensor,
    teacher_logits_BTU: Tensor,
    common: Tensor,
    *,
    soft: SoftLoss,
) -> DistillationTerms:
    """Both terms where teacher and student read the same tokens.

    The teacher's softmax is over the common ids only: its padded columns, and tokens that the student lacks, carry no
    probability. The student's is over all its columns, so that probability on its own padding is unlearnt.

    Args:
        student_logits_BTV: [B, T, V].
        labels_BT: [B, T] as for `target_rows`.
        teacher_logits_BTU: [B, T, U]; U may be more or less than V.
        common: [C] bool, ids that mean the same on both sides (`alignment.token_bytes.common_ids`).
        soft: temperature and divergence.
    """
    rows, targets = target_rows(labels_BT)
    student_NV = _rows(student_logits_BTV, rows)
    teacher_NV = restrict_columns(_rows(teacher_logits_BTU.detach(), rows), common, student_NV.shape[1])
    soft_sum, soft_rows = _soft_sum(student_NV, teacher_NV, soft)
    return DistillationTerms(soft_sum, _cross_entropy_sum(student_NV, targets), soft_rows, len(rows))


def cross_vocabulary_terms(
    student_logits_BTV: Tensor,
    labels_BT: Tensor,
    student_row_index_R: Tensor,
    log_target_RV: Tensor,
    *,
    soft: SoftLoss,
) -> DistillationTerms:
    """Both terms where the teacher's distributions had to be said in the student's tokens.

    Args:
        student_logits_BTV: [B, T, V].
        labels_BT: [B, T] as for `target_rows`; the hard term is over all of them, aligned or not.
        student_row_index_R: [R] indices into the flattened [B·T] rows; they predict what the targets are about.
        log_target_RV: [R, V] log-probabilities at temperature 1 (`alignment.bpm.BytePrefixMap.project`); rows that
            are -inf throughout have no target and are dropped.
        soft: temperature, applied to the targets here, after the marginalisation, and divergence.
    """
    rows, targets = target_rows(labels_BT)
    hard_sum = _cross_entropy_sum(_rows(student_logits_BTV, rows), targets)
    student_RV = _rows(student_logits_BTV, student_row_index_R)
    soft_sum, soft_rows = _soft_sum(student_RV, log_target_RV.detach(), soft)
    return DistillationTerms(soft_sum, hard_sum, soft_rows, len(rows))


def combine(terms: DistillationTerms, alpha: float, beta: float, normalizer: int | Tensor) -> Tensor:
    """(α·soft + β·hard) / N, [] nats per target.

    Args:
        normalizer: N, the targets of the whole optimizer step; none counts as one, so that an empty step is zero.
    """
    loss = torch.zeros_like(terms.hard_sum)
    for weight, term in ((alpha, terms.soft_sum), (beta, terms.hard_sum)):
        if weight != 0:  # Left out rather than multiplied: 0 · inf is NaN.
            loss = loss + weight * term
    return loss / (torch.clamp(normalizer, min=1) if isinstance(normalizer, Tensor) else max(normalizer, 1))


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


def _rows(logits: Tensor, rows: Tensor) -> Tensor:
    # Selecting drops what is masked before any softmax: a NaN or inf in padding reaches neither value nor gradient.
    return logits.flatten(0, -2).index_select(0, rows)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _cross_entropy_sum(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return functional.cross_entropy(_wide(logits_NV), targets_N, reduction="sum")


def _soft_sum(student_NV: Tensor, target_NV: Tensor, soft: SoftLoss) -> tuple[Tensor, int]:
    """Σ τ²·D over the rows that have a target, and their number."""
    impossible = target_NV.amax(-1) == -math.inf  # Not ">": a NaN has to reach the loss, where it is noticed.
    if bool(impossible.any()):
        student_NV, target_NV = student_NV[~impossible], target_NV[~impossible]
    rows = soft.rows(target_NV, student_NV)
    return rows.sum(), len(rows)
