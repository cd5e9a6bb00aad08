"""White box across tokenizers: one objective for each `--alignment`, all with the same interface.

Rows are indices into flattened [B·T] positions. A batch carries, for each of R student rows that have a place in the
teacher's reading (`alignment.rows.AlignedRows`): student_row_index, teacher_row_index, skips, end_row_index and
end_skips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillkit.alignment.bpm import BytePrefixMap, Realised, Restriction
from distillkit.alignment.first_token import canonical_first, exact_twin
from distillkit.alignment.rows import LEAD, crossing, twins
from distillkit.data.text_encoder import TextEncoders
from distillkit.device.number_formats import widen
from distillkit.losses.alm import chunk_sums, likelihood_divergence
from distillkit.losses.chunked import SoftTargets, StudentOutput, rows_per_chunk, token_log_probs
from distillkit.losses.mapped_mass import MappedMass
from distillkit.losses.target_rows import target_rows
from distillkit.losses.tempered import SoftLoss
from distillkit.losses.uld import UniversalLogitLoss
from distillkit.settings.parameters import Parameters
from distillkit.teachers.protocol import Teacher
from distillkit.training.objectives import Objective, SoftSettings, Terms, Weights, weighted_loss


@dataclass(frozen=True)
class BatchRows:
    """The aligned rows of a batch, on the processor: R int64 numbers each, ascending by student row."""

    student: np.ndarray
    teacher: np.ndarray
    skips: np.ndarray
    ends: np.ndarray
    end_skips: np.ndarray

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> BatchRows:
        names = ("student_row_index", "teacher_row_index", "skips", "end_row_index", "end_skips")
        return cls(*(batch[name].cpu().numpy() for name in names))

    def where(self, keep: np.ndarray) -> BatchRows:
        return BatchRows(
            *(column[keep] for column in (self.student, self.teacher, self.skips, self.ends, self.end_skips))
        )

    @property
    def twins(self) -> np.ndarray:
        return twins(self.teacher, self.skips, self.ends, self.end_skips)

    @property
    def crossing(self) -> np.ndarray:
        return crossing(self.teacher, self.ends, self.end_skips)


def _next_ids(ids_BT: Tensor) -> np.ndarray:
    """[B·T] the id that each row predicts; -1 behind the last."""
    ids = ids_BT.cpu().numpy()
    return np.concatenate([ids[:, 1:], np.full((len(ids), 1), -1)], axis=1).reshape(-1)


class BytePrefix:
    """Byte-prefix marginalisation at the aligned rows, cross-entropy everywhere.

    With the map of exact twins it is the strict divergence over the shared vocabulary.

    Args:
        teacher: the teacher's hidden states and head.
        prefix_map: from the teacher's tokens to the student's.
        soft: temperature and divergence.
        only: which rows are used: "all"; "boundaries", where both stand at the same byte; "twins", where the next
            token of both is the same.
        realised: whether the teacher token that is met goes to the student's next token.

    Attributes:
        mass: how much of the teacher's probability the student has tokens for.
    """

    def __init__(
        self,
        teacher: Teacher,
        prefix_map: BytePrefixMap,
        soft: SoftSettings,
        *,
        only: str = "all",
        realised: bool = True,
    ) -> None:
        self.teacher = teacher
        self.prefix_map = prefix_map
        self.soft = soft
        self.only = only
        self.realised = realised
        self.mass = MappedMass()

    def __call__(self, student: StudentOutput, batch: Mapping[str, Tensor], weights: Weights) -> Terms:
        targets = self.soft_targets(batch)
        rows_labels = target_rows(batch["labels"])
        found = weighted_loss(student, rows_labels, weights.beta, targets, self.soft.at(weights.done), weights)
        return Terms(found.loss, found.soft_sum, found.cross_entropy_N.sum(), found.soft_rows)

    def soft_targets(self, batch: Mapping[str, Tensor]) -> SoftTargets:
        """The teacher's distributions in the student's tokens, at the rows that are used."""
        rows, _ = target_rows(batch["labels"])
        aligned = self._used(BatchRows.of(batch))
        hidden = self.teacher.hidden(batch)
        return _Marginalised(
            rows=torch.searchsorted(rows, torch.from_numpy(aligned.student).to(rows.device)),
            hidden_RD=hidden.index_select(0, torch.from_numpy(aligned.teacher).to(hidden.device)),
            realised=self._realised(batch, aligned, hidden),
            restrictions=self._restrictions(batch, aligned),
            objective=self,
        )

    def _used(self, aligned: BatchRows) -> BatchRows:
        if self.only == "twins":
            return aligned.where(aligned.twins)
        keep = aligned.skips == 0 if self.only == "boundaries" else np.ones(len(aligned.skips), dtype=bool)
        return aligned.where(keep if self.realised else keep & ~aligned.crossing)

    def _restrictions(self, batch: Mapping[str, Tensor], aligned: BatchRows) -> list[tuple[int, Restriction]]:
        """What can follow at the rows inside a teacher token, in ascending order."""
        following = _next_ids(batch["teacher_input_ids"])
        found: list[tuple[int, Restriction]] = []
        for row in np.flatnonzero(aligned.skips).tolist():
            skip = int(aligned.skips[row])
            if skip == LEAD:
                found.append((row, self.prefix_map.restriction(b"", lead=True)))
            else:
                piece = self.prefix_map.teacher.pieces[following[aligned.teacher[row]]] or b""
                found.append((row, self.prefix_map.restriction(piece[:skip])))
        return found

    def _realised(self, batch: Mapping[str, Tensor], aligned: BatchRows, hidden: Tensor) -> Realised | None:
        if not self.realised:
            return None
        next_teacher = _next_ids(batch["teacher_input_ids"])
        next_student = _next_ids(batch["input_ids"])
        onward = self._onward(aligned, next_teacher, hidden)
        device = hidden.device
        return Realised(
            torch.from_numpy(next_teacher[aligned.teacher]).to(device),
            torch.from_numpy(next_student[aligned.student]).to(device),
            onward,
        )

    def _onward(self, aligned: BatchRows, next_teacher: np.ndarray, hidden: Tensor) -> Tensor:
        """[R] the chain rule: the probability that the teacher, having written its next token, writes the rest of the
        student's token: whole tokens, and at the end any token that begins with the bytes that are left."""
        onward = torch.ones(len(aligned.student), dtype=torch.float64)
        rows = np.flatnonzero(aligned.crossing)
        if not len(rows):
            return onward.to(hidden.device)
        owner: list[int] = []
        where: list[int] = []
        ids: list[np.ndarray] = []
        for row in rows.tolist():
            for teacher_row in range(int(aligned.teacher[row]) + 1, int(aligned.ends[row]) + 1):
                if teacher_row < aligned.ends[row]:
                    accepted = next_teacher[teacher_row : teacher_row + 1]
                elif aligned.end_skips[row] > 0:
                    piece = self.prefix_map.teacher.pieces[next_teacher[teacher_row]] or b""
                    accepted = self.prefix_map.ids_with_prefix(piece[: int(aligned.end_skips[row])])
                else:
                    continue
                owner.append(row)
                where.append(teacher_row)
                ids.append(accepted)
        probabilities = _probability_of(self.teacher, hidden, where, ids, len(self.prefix_map.student_ids))
        for row, probability in zip(owner, probabilities, strict=True):
            onward[row] *= probability
        return onward.to(hidden.device)


def _probability_of(
    teacher: Teacher, hidden: Tensor, rows: list[int], ids: list[np.ndarray], tokens: int
) -> list[float]:
    """For each row the teacher's probability that its next token is one of the ids."""
    found: list[float] = []
    distinct, place = np.unique(np.array(rows, dtype=np.int64), return_inverse=True)
    logits = [
        torch.softmax(widen(teacher.head(part))[:, :tokens], -1)
        for part in hidden.index_select(0, torch.from_numpy(distinct).to(hidden.device)).split(
            rows_per_chunk(tokens, hidden.device)
        )
    ]
    probabilities = torch.cat(logits)
    for index, accepted in zip(place.tolist(), ids, strict=True):
        inside = torch.from_numpy(accepted[accepted < probabilities.shape[1]]).to(hidden.device)
        found.append(float(probabilities[index].index_select(0, inside).sum()))
    return found


@dataclass(frozen=True)
class _Marginalised:
    """The teacher's distributions in the student's tokens, a few rows at a time."""

    rows: Tensor
    hidden_RD: Tensor
    realised: Realised | None
    restrictions: list[tuple[int, Restriction]]
    objective: BytePrefix

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        logits, options = self._asked(begin, end)
        found = self.objective.prefix_map.project(logits, columns, **options)
        self._count(found.residual)
        return found.log_target

    def target(self, begin: int, end: int, columns: int) -> Tensor:
        logits, options = self._asked(begin, end)
        found = self.objective.prefix_map.masses(logits, columns, **options)
        self._count(found.residual)
        return found.target

    def _asked(self, begin: int, end: int) -> tuple[Tensor, dict[str, Any]]:
        part = self.realised
        if part is not None:
            part = Realised(part.teacher_ids[begin:end], part.student_ids[begin:end], part.onward[begin:end])
        inside = [(row - begin, item) for row, item in self.restrictions if begin <= row < end]
        return self.objective.teacher.head(self.hidden_RD[begin:end]), {"restrictions": inside, "realised": part}

    def _count(self, residual: Tensor) -> None:
        self.objective.mass.mapped += float((1 - residual).sum())
        self.objective.mass.rows += len(residual)


class UniversalLogit:
    """ULD at shared boundaries (the paper pairs the n-th tokens of both), cross-entropy everywhere."""

    def __init__(self, teacher: Teacher, temperature: float, teacher_tokens: int) -> None:
        self.teacher = teacher
        self.soft = UniversalLogitLoss(temperature)
        self.teacher_tokens = teacher_tokens

    def __call__(self, student: StudentOutput, batch: Mapping[str, Tensor], weights: Weights) -> Terms:
        rows, labels = target_rows(batch["labels"])
        aligned = BatchRows.of(batch)
        aligned = aligned.where(aligned.skips == 0)
        hidden = self.teacher.hidden(batch)
        targets = _OwnColumns(
            torch.searchsorted(rows, torch.from_numpy(aligned.student).to(rows.device)),
            hidden.index_select(0, torch.from_numpy(aligned.teacher).to(hidden.device)),
            self.teacher,
            self.teacher_tokens,
        )
        found = weighted_loss(student, (rows, labels), weights.beta, targets, self.soft, weights)
        return Terms(found.loss, found.soft_sum, found.cross_entropy_N.sum(), found.soft_rows)


@dataclass(frozen=True)
class _OwnColumns:
    rows: Tensor
    hidden_RD: Tensor
    teacher: Teacher
    tokens: int

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        return self.teacher.head(self.hidden_RD[begin:end])[:, : self.tokens]


class LikelihoodMatching:
    """ALM: the likelihood of each stretch between two shared boundaries, cross-entropy everywhere."""

    def __init__(self, teacher: Teacher, teacher_tokens: int) -> None:
        self.teacher = teacher
        self.teacher_tokens = teacher_tokens

    def __call__(self, student: StudentOutput, batch: Mapping[str, Tensor], weights: Weights) -> Terms:
        rows, labels = target_rows(batch["labels"])
        student_chunk, teacher_rows, teacher_chunk, chunks = _stretches(BatchRows.of(batch))
        hidden = self.teacher.hidden(batch)
        following = torch.from_numpy(_next_ids(batch["teacher_input_ids"])[teacher_rows]).to(hidden.device)
        teacher_logs = self._teacher_log_probs(hidden, teacher_rows, following)
        teacher_sums = chunk_sums(teacher_logs, torch.from_numpy(teacher_chunk).to(hidden.device), chunks)
        with torch.no_grad():
            own = token_log_probs(student, rows, labels)
        # The gradient goes through the log-probability of the true tokens alone, so the second pass is a
        # cross-entropy with a weight for each row.
        chunk_of = torch.full((batch["labels"].numel(),), -1, dtype=torch.long)
        chunk_of[torch.from_numpy(student_chunk[0])] = torch.from_numpy(student_chunk[1])
        chunk_of = chunk_of.to(rows.device)[rows]
        with torch.enable_grad():
            leaf = own.detach().requires_grad_()
            soft_sum = likelihood_divergence(teacher_sums.to(leaf.dtype), chunk_sums(leaf, chunk_of, chunks)).sum()
            (slope,) = torch.autograd.grad(soft_sum, leaf)
        found = weighted_loss(student, (rows, labels), weights.beta - weights.alpha * slope, None, SoftLoss(), weights)
        hard_sum = found.cross_entropy_N.sum()
        value = (weights.alpha * soft_sum.detach() + weights.beta * hard_sum) / weights.divisor.clamp(min=1)
        # The value of the objective with the gradient of the weighted cross-entropy.
        loss = found.loss + (value - found.loss).detach()
        return Terms(loss, soft_sum.detach(), hard_sum, chunks)

    def _teacher_log_probs(self, hidden: Tensor, rows: np.ndarray, targets: Tensor) -> Tensor:
        selected = hidden.index_select(0, torch.from_numpy(rows).to(hidden.device))
        size = rows_per_chunk(self.teacher_tokens, hidden.device)
        parts = [
            -torch.nn.functional.cross_entropy(
                widen(self.teacher.head(part))[:, : self.teacher_tokens], target, reduction="none"
            )
            for part, target in zip(selected.split(size), targets.split(size), strict=True)
        ]
        return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)


def _stretches(aligned: BatchRows) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray, int]:
    """The stretches between shared boundaries: (student rows, their stretch), teacher rows, their stretch, number.

    A stretch begins at a boundary row and goes on until the next one that follows without a gap.
    """
    begins = np.flatnonzero(aligned.skips == 0)
    student: list[np.ndarray] = []
    teacher: list[np.ndarray] = []
    for begin, following in zip(begins.tolist(), [*begins[1:].tolist(), len(aligned.skips)], strict=True):
        rows = aligned.student[begin:following]
        # Within one text and gapless, or the two sides would not cover the same bytes.
        whole = bool((np.diff(rows) == 1).all()) and aligned.end_skips[following - 1] == 0
        student.append(rows if whole else rows[:0])
        end = int(aligned.ends[following - 1]) if whole else int(aligned.teacher[begin])
        teacher.append(np.arange(int(aligned.teacher[begin]), end))
    kept = [index for index, rows in enumerate(student) if len(rows) and len(teacher[index])]
    empty = np.zeros(0, dtype=np.int64)

    def joined(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        chosen = [parts[index] for index in kept]
        numbers = np.repeat(np.arange(len(chosen)), [len(part) for part in chosen])
        return (np.concatenate(chosen) if chosen else empty), numbers.astype(np.int64)

    student_rows = joined(student)
    teacher_rows, teacher_numbers = joined(teacher)
    return student_rows, teacher_rows, teacher_numbers, len(kept)


def aligned_objective(config: Parameters, teacher: Teacher, encoders: TextEncoders) -> Objective:
    """The objective that `config.alignment` names, `auto` being byte-prefix marginalisation.

    Raises:
        ValueError: a tokenizer's bytes are not known; prepare-data refuses such a pair.
    """
    teacher_table, student_table = encoders.teacher.table, encoders.student.table
    if teacher_table is None or student_table is None:
        raise ValueError("white box needs token bytes")
    if config.alignment == "uld":
        return UniversalLogit(teacher, config.temperature, len(teacher_table))
    if config.alignment == "alm":
        return LikelihoodMatching(teacher, len(teacher_table))
    soft = SoftSettings.of(config)
    if config.alignment == "strict":
        prefix_map = BytePrefixMap.build(teacher_table, student_table, first=exact_twin(student_table))
        return BytePrefix(teacher, prefix_map, soft, only="twins", realised=False)
    first = canonical_first(student_table, encoders.student.tokenizer) if config.prefix_map == "canonical" else None
    return BytePrefix(teacher, BytePrefixMap.build(teacher_table, student_table, first=first), soft)
