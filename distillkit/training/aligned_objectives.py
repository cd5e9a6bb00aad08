"""Alignments with a loss of their own: universal logit distillation and approximate likelihood matching.

Both compare with the teacher at the shared byte boundaries of two readings; neither needs a map between the vocabularies.
Rows are indices into flattened [B·T] positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillkit.data.batching import AlignedBatch
from distillkit.data.text_encoder import TextEncoders, token_tables
from distillkit.device.number_formats import widen
from distillkit.losses.alm import chunk_sums, likelihood_divergence
from distillkit.losses.chunked import SoftTargets, StudentOutput, rows_per_chunk, token_log_probs
from distillkit.losses.mapped_mass import MappedMass
from distillkit.losses.target_rows import next_ids
from distillkit.losses.tempered import SoftLoss
from distillkit.losses.uld import UniversalLogitLoss
from distillkit.settings.conditions import anneals
from distillkit.settings.parameters import Parameters
from distillkit.teachers.protocol import Teacher
from distillkit.training.objectives import Objective, SoftObjective, SoftSettings, Terms, Weights, weighted_loss


class OwnColumns:
    """The teacher's logits at the shared boundaries, in its own columns.

    Args:
        teacher_tokens: columns that are tokens.
    """

    def __init__(self, teacher: Teacher, teacher_tokens: int) -> None:
        self.teacher = teacher
        self.teacher_tokens = teacher_tokens
        self.mass = MappedMass()

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        aligned: AlignedBatch = batch["host"].rows
        aligned = aligned.where(aligned.skips == 0)
        return {
            "rows": torch.searchsorted(batch["target_rows"], torch.from_numpy(aligned.student_rows)),
            "teacher_rows": torch.from_numpy(aligned.teacher_rows),
        }

    def soft_targets(self, batch: Mapping[str, Any]) -> SoftTargets:
        prepared = batch["prepared"]
        hidden = self.teacher.hidden(batch).index_select(0, prepared["teacher_rows"])
        return _TeacherLogits(prepared["rows"], hidden, self.teacher, self.teacher_tokens)


@dataclass(frozen=True)
class _TeacherLogits:
    rows: Tensor
    hidden_RD: Tensor
    teacher: Teacher
    tokens: int

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        return self.teacher.head(self.hidden_RD[begin:end])[:, : self.tokens]


class LikelihoodMatching:
    """ALM: the likelihood of each stretch between two shared boundaries, cross-entropy everywhere.

    Args:
        teacher_tokens: columns of the teacher's head that are tokens.
    """

    def __init__(self, teacher: Teacher, teacher_tokens: int) -> None:
        self.teacher = teacher
        self.teacher_tokens = teacher_tokens
        self.mass = MappedMass()

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Which stretch every row of both sides is in, and the tokens that the teacher predicts there."""
        student_chunk, teacher_rows, teacher_chunk, chunks = stretches(batch["host"].rows)
        chunk_of = torch.full((batch["labels"].numel(),), -1, dtype=torch.long)
        chunk_of[torch.from_numpy(student_chunk[0])] = torch.from_numpy(student_chunk[1])
        return {
            "teacher_rows": torch.from_numpy(teacher_rows),
            "teacher_ids": torch.from_numpy(next_ids(batch["teacher_input_ids"])[teacher_rows]),
            "teacher_chunk": torch.from_numpy(teacher_chunk),
            "student_chunk": chunk_of[batch["target_rows"]],
            "chunks": chunks,
        }

    def __call__(self, student: StudentOutput, batch: Mapping[str, Any], weights: Weights) -> Terms:
        prepared = batch["prepared"]
        chunks: int = prepared["chunks"]
        hidden = self.teacher.hidden(batch)
        teacher_logs = self._teacher_log_probs(hidden, prepared["teacher_rows"], prepared["teacher_ids"])
        teacher_sums = chunk_sums(teacher_logs, prepared["teacher_chunk"], chunks)
        with torch.no_grad():
            own = token_log_probs(student, batch["target_rows"], batch["target_ids"])
        # The gradient goes through the log-probability of the true tokens alone, so the second pass is a
        # cross-entropy with a weight for each row.
        with torch.enable_grad():
            leaf = own.detach().requires_grad_()
            student_sums = chunk_sums(leaf, prepared["student_chunk"], chunks)
            soft_sum = likelihood_divergence(teacher_sums.to(leaf.dtype), student_sums).sum()
            (slope,) = torch.autograd.grad(soft_sum, leaf)
        computed = weighted_loss(student, batch, weights.beta - weights.alpha * slope, None, SoftLoss(), weights)
        hard_sum = computed.cross_entropy_N.sum()
        value = (weights.alpha * soft_sum.detach() + weights.beta * hard_sum) / weights.divisor.clamp(min=1)
        # The value of the objective with the gradient of the weighted cross-entropy.
        loss = computed.loss + (value - computed.loss).detach()
        return Terms(loss, soft_sum.detach(), hard_sum)

    def _teacher_log_probs(self, hidden: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        selected = hidden.index_select(0, rows)
        size = rows_per_chunk(self.teacher_tokens, hidden.device)
        log_probs = [
            -torch.nn.functional.cross_entropy(
                widen(self.teacher.head(part))[:, : self.teacher_tokens], target, reduction="none"
            )
            for part, target in zip(selected.split(size), targets.split(size), strict=True)
        ]
        return torch.cat(log_probs) if log_probs else hidden.new_zeros(0, dtype=torch.float32)


def stretches(aligned: AlignedBatch) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray, int]:
    """The stretches between shared boundaries: (student rows, their stretch), teacher rows, their stretch, number.

    A stretch begins at a boundary row and goes on until the next one that follows without a gap.
    """
    begins = np.flatnonzero(aligned.skips == 0)
    student: list[np.ndarray] = []
    teacher: list[np.ndarray] = []
    following_ones = [*begins.tolist(), len(aligned.skips)][1:]  # None where no row is at a boundary.
    for begin, following in zip(begins.tolist(), following_ones, strict=True):
        rows = aligned.student_rows[begin:following]
        # Within one text and gapless, or the two sides would not cover the same bytes.
        whole = bool((np.diff(rows) == 1).all()) and aligned.end_skips[following - 1] == 0
        student.append(rows if whole else rows[:0])
        end = int(aligned.end_rows[following - 1]) if whole else int(aligned.teacher_rows[begin])
        teacher.append(np.arange(int(aligned.teacher_rows[begin]), end))
    kept = [index for index, rows in enumerate(student) if len(rows) and len(teacher[index])]
    empty = np.zeros(0, dtype=np.int64)

    def joined(sides: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        chosen = [sides[index] for index in kept]
        numbers = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
        return (np.concatenate(chosen) if chosen else empty), numbers.astype(np.int64)

    student_rows = joined(student)
    teacher_rows, teacher_numbers = joined(teacher)
    return student_rows, teacher_rows, teacher_numbers, len(kept)


def universal_logit(teacher: Teacher, encoders: TextEncoders, config: Parameters) -> Objective:
    """White box across tokenizers: the teacher's sorted probabilities (universal logit distillation); every true token was
    learned as well (hard targets)."""
    teacher_table, _ = token_tables(encoders)
    soft = SoftSettings(UniversalLogitLoss(config.temperature), anneals(vars(config)))
    return SoftObjective(OwnColumns(teacher, len(teacher_table)), soft)


def likelihood_matching(teacher: Teacher, encoders: TextEncoders, config: Parameters) -> Objective:
    """White box across tokenizers: the teacher's likelihood of every stretch of text between two shared token boundaries
    (approximate likelihood matching); every true token was learned as well (hard targets)."""
    teacher_table, _ = token_tables(encoders)
    return LikelihoodMatching(teacher, len(teacher_table))
