"""Byte-prefix marginalisation: the teacher's next-token distribution over the student's tokens (arXiv 2607.22334).

Where both encodings stand at the same byte, every teacher token votes for the student token that a student would
have to write first to spell it. That is a fixed integer map from one vocabulary to the other, so a target costs one
scatter of U numbers a row. Inside a teacher token only the tokens that begin with the bytes already written can
follow: a contiguous range of the vocabulary sorted by bytes. And for the token that the teacher meets in the text it is
known how the student spells it, also where the student's token extends beyond it.

Shapes: N rows, U the teacher's columns, V the student's columns (heads may be wider than their tokenizers).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from distillkit.alignment.first_token import FirstTokens, longest_prefix
from distillkit.alignment.token_bytes import TokenBytes
from distillkit.device.number_formats import widen


@dataclass(frozen=True)
class Projection:
    """Teacher distributions in the student's columns.

    Attributes:
        log_target: [N, V] log-probabilities at temperature 1, renormalised over the mapped mass; -inf for every
            student token that no teacher token maps to. A row whose whole mass is residual is -inf throughout: it has
            no target and must not be used (the losses drop it).
        residual: [N] probability that no student token stands for, of what can follow at that row.
    """

    log_target: Tensor
    residual: Tensor


@dataclass(frozen=True)
class Masses:
    """A projection before its logarithm is taken.

    Attributes:
        target: [N, V] probabilities of the student's tokens, not renormalised; exactly 0 for those that no teacher token
            maps to.
        total: [N] their sum.
        residual: [N] as in `Projection`.
    """

    target: Tensor
    total: Tensor
    residual: Tensor


@dataclass(frozen=True)
class Restriction:
    """The teacher tokens that can follow inside one of its tokens.

    Attributes:
        teacher_ids: [m] int64, the tokens that begin with the bytes already written, the token of just these bytes among
            them.
        student_ids: [m] int64, the student's first token of what is left of each; `residual_id` where there is none.
    """

    teacher_ids: np.ndarray
    student_ids: np.ndarray


@dataclass(frozen=True)
class Realised:
    """What the text shows about rows: the teacher token that is met, and how the student spells its beginning.

    Attributes:
        teacher_ids: [N] int64, the teacher's next token.
        student_ids: [N] int64, the student's next token.
        onward: [N] the probability, given that teacher token, that the teacher continues with the rest of the student's
            token: 1 where the student's token does not extend beyond it.
    """

    teacher_ids: Tensor
    student_ids: Tensor
    onward: Tensor


@dataclass(frozen=True, eq=False)
class BytePrefixMap:
    """The map from the teacher's ids to the student's; `build` makes one.

    Attributes:
        student_ids: [len(teacher)] int64; `residual_id` where there is no student token.
        student_size: tokens of the student's tokenizer.
        teacher: the bytes of the teacher's tokens.
        first: the student's first token of a piece (`alignment.first_token`).
    """

    student_ids: Tensor
    student_size: int
    teacher: TokenBytes
    first: FirstTokens
    _restrictions: dict[tuple[bytes, bool], Restriction] = field(default_factory=dict)

    @property
    def residual_id(self) -> int:
        """One past the last student id."""
        return self.student_size

    @classmethod
    def build(
        cls,
        teacher: TokenBytes,
        student: TokenBytes,
        *,
        first: FirstTokens | None = None,
        map_eos: bool = True,
        map_names: bool = False,
        ends_of_turn: tuple[int, int] | None = None,
    ) -> BytePrefixMap:
        """Map every teacher token to the student's first token of its bytes.

        The teacher's EOS becomes the student's EOS if both have one and `map_eos`; every other special token is
        residual, unless `map_names` and the student has one of the same name. An EOS whose name the student has goes to
        that token too then; where a text ends, `Realised` moves it to the student's EOS.

        Args:
            teacher, student: the bytes of both vocabularies.
            first: the student's first token of a piece; default: the longest prefix.
            map_names: the texts' special tokens are read as tokens.
            ends_of_turn: of conversations, the tokens that end an answer, the teacher's and the student's: the probability of
                one is that of the other.
        """
        first = first or longest_prefix(student)
        student_ids = torch.from_numpy(first([piece or b"" for piece in teacher.pieces]))
        if teacher.eos_id is not None:
            student_ids[teacher.eos_id] = len(student) if student.eos_id is None or not map_eos else student.eos_id
        if map_names:
            by_name = {name: index for index, name in student.specials.items()}
            for index, name in teacher.specials.items():
                if name in by_name:
                    student_ids[index] = by_name[name]
        if ends_of_turn is not None:
            student_ids[ends_of_turn[0]] = ends_of_turn[1]
        return cls(student_ids, len(student), teacher, first)

    def to(self, device: torch.device) -> BytePrefixMap:
        """The same map on another device."""
        return BytePrefixMap(self.student_ids.to(device), self.student_size, self.teacher, self.first)

    # --- what can follow inside a teacher token ---

    @cached_property
    def _sorted(self) -> tuple[list[bytes], np.ndarray]:
        """The teacher's pieces in the order of their bytes, and their ids: every prefix is a contiguous range."""
        pairs = sorted((piece, index) for index, piece in enumerate(self.teacher.pieces) if piece)
        return [piece for piece, _ in pairs], np.array([index for _, index in pairs], dtype=np.int64)

    def restriction(self, prefix: bytes, *, lead: bool = False) -> Restriction:
        """What can follow once the teacher's next token has been written as far as `prefix`.

        Args:
            prefix: its first bytes; b"" restricts to ordinary tokens.
            lead: the student has to write a space first that the teacher does not write.
        """
        key = (prefix, lead)
        if key not in self._restrictions:
            pieces, ids = self._sorted
            low, high = self._range(prefix)
            rest = [b" " * lead + piece[len(prefix) :] for piece in pieces[low:high]]
            self._restrictions[key] = Restriction(ids[low:high], self.first(rest))
        return self._restrictions[key]

    def _range(self, prefix: bytes) -> tuple[int, int]:
        pieces, _ = self._sorted
        low = bisect_left(pieces, prefix)
        # No UTF-8 piece, nor a part of one, has the byte 0xFF so often.
        return low, bisect_left(pieces, prefix + b"\xff" * 64, lo=low)

    def ids_with_prefix(self, prefix: bytes) -> np.ndarray:
        """[m] int64, the teacher tokens that begin with `prefix`."""
        low, high = self._range(prefix)
        return self._sorted[1][low:high]

    # --- targets ---

    def project(
        self,
        teacher_logits_NU: Tensor,
        columns: int | None = None,
        *,
        restrictions: Sequence[tuple[int, Restriction]] = (),
        realised: Realised | None = None,
    ) -> Projection:
        """Teacher logits -> targets over the student's columns, at temperature 1 (tempering comes after).

        Teacher columns beyond its tokenizer are cut before the softmax, so padding carries no probability; student
        columns beyond its tokenizer get none, and what maps beyond `columns` is residual. In float32, or float64 if
        the logits are; a mass below the smallest float counts as zero.

        Args:
            teacher_logits_NU: [N, U].
            columns: V, the width of the student's head; default: the size of its tokenizer.
            restrictions: (row, what can follow there) for rows inside a teacher token.
            realised: moves the probability of the teacher token that is met, as far as it leads to the student's next
                token, from the token that the map chose to that token.
        """
        masses = self.masses(teacher_logits_NU, columns, restrictions=restrictions, realised=realised)
        # Nothing mapped: log 0 - log 1 keeps the row at -inf, where log 0 - log 0 would be NaN.
        log_total = masses.total.masked_fill(masses.total == 0, 1).log()
        return Projection(masses.target.log() - log_total[:, None], masses.residual)

    def masses(
        self,
        teacher_logits_NU: Tensor,
        columns: int | None = None,
        *,
        restrictions: Sequence[tuple[int, Restriction]] = (),
        realised: Realised | None = None,
    ) -> Masses:
        """The probabilities that `project` takes the logarithms of.

        Args:
            teacher_logits_NU, columns, restrictions, realised: as for `project`.
        """
        width = self.student_size if columns is None else columns
        used = min(teacher_logits_NU.shape[1], len(self.student_ids))
        probabilities = torch.softmax(widen(teacher_logits_NU[:, :used]), dim=-1)
        device, rows = probabilities.device, len(probabilities)
        # One more column, for the residual id and for ids that the head lacks.
        mapped = self._columns(self.student_ids[:used].to(device), width)
        masses = probabilities.new_zeros(rows, width + 1)
        masses.scatter_add_(1, mapped.expand(rows, used), probabilities)
        placed = None if realised is None else mapped[realised.teacher_ids.clamp(max=used - 1)]
        if restrictions:
            where, teacher_ids, student_ids = _flatten(restrictions, used, device)
            student_ids = self._columns(student_ids, width)
            inside = torch.tensor([row for row, _ in restrictions], device=device)
            masses[inside] = 0
            flat = masses.view(-1)
            flat.index_add_(0, where * (width + 1) + student_ids, probabilities.view(-1)[where * used + teacher_ids])
            if realised is not None and placed is not None:
                met = teacher_ids == realised.teacher_ids[where]
                placed[where[met]] = student_ids[met]
        if realised is not None and placed is not None:
            self._move(masses, probabilities, placed, realised, width)
        target, residual = masses[:, :width], masses[:, width]
        total = target.sum(-1)
        everything = total + residual
        share = residual / everything.masked_fill(everything == 0, 1) if restrictions else residual
        return Masses(target, total, share.masked_fill(everything == 0, 1))

    def _columns(self, student_ids: Tensor, width: int) -> Tensor:
        return student_ids.masked_fill((student_ids >= width) | (student_ids == self.residual_id), width)

    @staticmethod
    def _move(masses: Tensor, probabilities: Tensor, placed: Tensor, realised: Realised, width: int) -> None:
        met = realised.teacher_ids
        used = probabilities.shape[1]
        known = (met < used) & (placed != realised.student_ids) & (realised.student_ids < width)
        moving = probabilities.gather(1, met.clamp(max=used - 1)[:, None])[:, 0] * realised.onward.to(masses.dtype)
        moving = moving.masked_fill(~known, 0)
        rows = torch.arange(len(masses), device=masses.device)
        # Never below zero: the token may have been alone there, and sums round.
        masses[rows, placed] = (masses[rows, placed] - moving).clamp(min=0)
        masses[rows, realised.student_ids.clamp(max=width)] += moving


def _flatten(
    restrictions: Sequence[tuple[int, Restriction]], used: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """[M] each: row, teacher id and student id of every token that can follow at the restricted rows."""
    counts = [len(item.teacher_ids) for _, item in restrictions]
    where = np.repeat([row for row, _ in restrictions], counts)
    teacher_ids = np.concatenate([item.teacher_ids for _, item in restrictions])
    student_ids = np.concatenate([item.student_ids for _, item in restrictions])
    keep = teacher_ids < used
    where_M, teacher_M, student_M = (
        torch.from_numpy(column[keep]).to(device) for column in (where, teacher_ids, student_ids)
    )
    return where_M, teacher_M, student_M
