"""The distillation objective in its plain form: whole logits, one row after the other, float64, gradients by autograd.

L = (α·Σ τ²·D(p_τ ‖ q_τ) + β·Σ CE(q, y)) / N   (Hinton et al. 2015, arXiv 1503.02531)

What the package computes in chunks, with gradients in closed form, is compared with this. It shares nothing with the
package but the divergences other than the forward KL (`SoftLoss.rows`), which tests/unit/losses/test_divergences.py holds
against their formulas.

Shapes: B texts, T positions, V student columns, U teacher columns, R rows with a teacher distribution. A row is one
position of the flattened [B·T] logits; row r predicts the token at r + 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distillkit.losses.tempered import SoftLoss

IGNORED = -100


@dataclass(frozen=True)
class PlainTerms:
    """The two terms of the objective as sums, neither weighed nor divided.

    Attributes:
        soft_sum: [] Σ over `soft_rows` rows of τ²·D(p_τ ‖ q_τ), nats.
        hard_sum: [] Σ over `hard_rows` rows of the cross-entropy with the true token, nats.
    """

    soft_sum: Tensor
    hard_sum: Tensor
    soft_rows: int
    hard_rows: int


def same_vocabulary_terms(
    student_logits_BTV: Tensor, labels_BT: Tensor, teacher_logits_BTU: Tensor, common: Tensor, *, soft: SoftLoss
) -> PlainTerms:
    """Both terms where teacher and student read the same tokens: at every target, over the ids common to both.

    Args:
        labels_BT: token ids in place (not shifted), -100 where a token is not a target.
        common: [C] bool, ids that mean the same on both sides.
    """
    columns = student_logits_BTV.shape[-1]
    shared = [i for i in range(min(columns, teacher_logits_BTU.shape[-1], len(common))) if common[i]]
    log_targets: dict[int, Tensor] = {}
    for row, _ in _targets(labels_BT):
        teacher_U = teacher_logits_BTU.flatten(0, 1)[row].double()
        log_targets[row] = torch.full((columns,), -math.inf, dtype=torch.float64)
        log_targets[row][shared] = teacher_U[shared]
    return _terms(student_logits_BTV, labels_BT, log_targets, soft)


def cross_vocabulary_terms(
    student_logits_BTV: Tensor, labels_BT: Tensor, rows_R: Tensor, log_target_RV: Tensor, *, soft: SoftLoss
) -> PlainTerms:
    """Both terms where the teacher's distributions are given in the student's tokens; the hard term is over all targets.

    Args:
        labels_BT: as for `same_vocabulary_terms`.
        rows_R: the rows that have a teacher distribution.
        log_target_RV: their log-weights at temperature 1; a row that is -inf throughout has no target.
    """
    log_targets = dict(zip(rows_R.tolist(), log_target_RV.double(), strict=True))
    return _terms(student_logits_BTV, labels_BT, log_targets, soft)


def combine(terms: PlainTerms, alpha: float, beta: float, targets: int) -> Tensor:
    """(α·soft + β·hard) / N, [] nats per target; a term of weight 0 is left out."""
    weighed = [
        weight * term for weight, term in ((alpha, terms.soft_sum), (beta, terms.hard_sum)) if weight != 0
    ]  # fmt: skip
    return sum(weighed, torch.zeros((), dtype=torch.float64)) / max(targets, 1)


def _targets(labels_BT: Tensor) -> list[tuple[int, int]]:
    """(row, true next token) of every target."""
    texts, length = labels_BT.shape
    places = [(b * length + t, int(labels_BT[b, t + 1])) for b in range(texts) for t in range(length - 1)]
    return [(row, target) for row, target in places if target != IGNORED]


def _terms(
    student_logits_BTV: Tensor, labels_BT: Tensor, log_targets: Mapping[int, Tensor], soft: SoftLoss
) -> PlainTerms:
    logits = student_logits_BTV.flatten(0, 1)
    soft_sum = hard_sum = logits[:0].double().sum()  # Zero, with a graph.
    targets = _targets(labels_BT)
    for row, target in targets:
        hard_sum = hard_sum - torch.log_softmax(logits[row].double(), 0)[target]
    soft_rows = 0
    for row, log_target in log_targets.items():
        if bool((log_target == -math.inf).all()):
            continue
        soft_sum = soft_sum + _divergence(log_target, logits[row].double(), soft)
        soft_rows += 1
    return PlainTerms(soft_sum, hard_sum, soft_rows, len(targets))


def _divergence(log_target_V: Tensor, logits_V: Tensor, soft: SoftLoss) -> Tensor:
    """τ²·D(p_τ ‖ q_τ) of one row."""
    if not soft.is_forward_kl:
        return soft.rows(log_target_V[None], logits_V[None])[0]
    p = torch.softmax(log_target_V / soft.temperature, 0)
    log_q = torch.log_softmax(logits_V / soft.temperature, 0)
    possible = p != 0  # 0 · log 0 is 0; a NaN stays.
    return soft.temperature**2 * (p[possible] * (p[possible].log() - log_q[possible])).sum()
