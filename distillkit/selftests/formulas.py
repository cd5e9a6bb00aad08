"""What training should compute, written down as in the papers: row after row, in float64, gradients by autograd.

L = (α·Σ τ²·KL(p_τ ‖ q_τ) + β·Σ CE(q, y)) / N   (Hinton et al. 2015, arXiv 1503.02531)

Nothing here is used for training, and nothing that training uses is used here.

Shapes: V student columns, K ids of a sparse row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distillkit.alignment.rows import LEAD
from distillkit.alignment.token_bytes import TokenBytes


@dataclass(frozen=True)
class SparseRow:
    """A teacher distribution of which a few ids are known, already tempered.

    Attributes:
        ids_K, probabilities_K: the ids, each once, and their probabilities.
        tail: the probability of all other ids together; 0: the ids are a sample, and their probabilities sum to 1.
    """

    ids_K: Tensor
    probabilities_K: Tensor
    tail: float


@dataclass(frozen=True)
class TrainedRow:
    """One row of the loss.

    Attributes:
        logits_V: the student's, with a graph.
        target: the true next token.
        teacher: [V] probabilities at temperature 1, a sparse row, or None where only the true token counts.
    """

    logits_V: Tensor
    target: int
    teacher: Tensor | SparseRow | None


def objective(rows: Iterable[TrainedRow], alpha: float, beta: float, temperature: float, divisor: int) -> Tensor:
    """L, [] float64 with a graph to the logits of the rows."""
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        logits_V = row.logits_V.double()
        total = total - beta * torch.log_softmax(logits_V, 0)[row.target]
        log_q = torch.log_softmax(logits_V / temperature, 0)
        if isinstance(row.teacher, SparseRow):
            total = total + alpha * temperature**2 * _sparse_divergence(row.teacher, log_q)
        elif row.teacher is not None and float(row.teacher.sum()) > 0:
            p = row.teacher.double() ** (1 / temperature)
            total = total + alpha * temperature**2 * _divergence(p / p.sum(), log_q)
    return total / divisor


def _divergence(p: Tensor, log_q: Tensor) -> Tensor:
    possible = p > 0  # 0 · log 0 is 0.
    return (p[possible] * (p[possible].log() - log_q[possible])).sum()


def _sparse_divergence(sparse: SparseRow, log_q_V: Tensor) -> Tensor:
    p_K = sparse.probabilities_K.double()
    divergence = _divergence(p_K, log_q_V[sparse.ids_K])
    if sparse.tail == 0:
        return divergence
    others = torch.ones(len(log_q_V), dtype=torch.bool)
    others[sparse.ids_K] = False
    tail = torch.tensor([sparse.tail], dtype=torch.float64)
    return divergence + _divergence(tail, log_q_V[others].logsumexp(0)[None])


def byte_prefix_target(
    tables: tuple[TokenBytes, TokenBytes],
    teacher_probabilities: Tensor,
    teacher_ids: Sequence[int],
    next_student_id: int,
    place: Sequence[int],
) -> Tensor:
    """[V] the teacher's distribution at one row in the student's tokens (arXiv 2607.22334), adding up to 1; zeros where no
    student token stands for anything.

    Args:
        tables: the bytes of the student's and of the teacher's tokens.
        teacher_probabilities: [T, U] of all its rows.
        teacher_ids: [T] what the teacher reads.
        next_student_id: what the student's row predicts in this text.
        place: teacher row, skip, end row and end skip, as in `alignment.rows.AlignedRows`.
    """
    student, teacher = tables
    row, skip, end_row, end_skip = place
    met = teacher_ids[row + 1]
    met_piece = teacher.pieces[met] or b""
    onward = _onward(teacher, teacher_probabilities, teacher_ids, row, end_row, end_skip)
    target_V = torch.zeros(len(student), dtype=torch.float64)
    for index, piece in enumerate(teacher.pieces):
        mass = float(teacher_probabilities[row, index])
        if index == met:
            # The text shows how the student spells the token that is met.
            target_V[next_student_id] += mass * onward
            mass -= mass * onward
        first = None
        if skip == 0 and index == teacher.eos_id:
            first = student.eos_id
        elif piece and skip == LEAD:
            first = _longest_prefix(student, b" " + piece)
        elif piece and piece.startswith(met_piece[:skip]):
            first = _longest_prefix(student, piece[skip:])
        if first is not None:
            target_V[first] += mass
    total = target_V.sum()
    return target_V / total if total > 0 else target_V


def _onward(
    teacher: TokenBytes, probabilities: Tensor, teacher_ids: Sequence[int], row: int, end_row: int, end_skip: int
) -> float:
    """The probability that the teacher, having written its next token, writes the rest of the student's token."""
    onward = 1.0
    for later in range(row + 1, end_row):
        onward *= float(probabilities[later, teacher_ids[later + 1]])
    if end_row > row and end_skip > 0:
        begun = (teacher.pieces[teacher_ids[end_row + 1]] or b"")[:end_skip]
        fitting = [index for index, piece in enumerate(teacher.pieces) if piece and piece.startswith(begun)]
        onward *= float(probabilities[end_row, fitting].sum())
    return onward


def _longest_prefix(student: TokenBytes, rest: bytes) -> int | None:
    fitting = [
        (len(piece), index)
        for index, piece in enumerate(student.pieces)
        if piece and rest.startswith(piece) and index not in student.shadowed
    ]
    return max(fitting)[1] if fitting else None
