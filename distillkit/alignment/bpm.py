"""Byte-prefix marginalisation: the teacher's next-token distribution, said in the student's tokens (arXiv 2607.22334).

Where both encodings stand at the same byte, every teacher token votes for the student token that a student would
have to write first to spell it: the longest student token that is a prefix of its bytes. That is a fixed integer map
from one vocabulary to the other, so a target costs one scatter of V_t numbers a row.

Shapes: N rows, U the teacher's columns, V the student's columns (heads may be wider than their tokenizers).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distillkit.alignment.boundaries import shared_boundaries
from distillkit.alignment.token_bytes import Encoding, TokenBytes

_WHITE_SPACE = np.frombuffer(b" \t\n\r\v\f", dtype=np.uint8)


@dataclass(frozen=True)
class Projection:
    """Teacher distributions in the student's columns.

    Attributes:
        log_target: [N, V] log-probabilities at temperature 1, renormalised over the mapped mass; -inf for every
            student token that no teacher token maps to. A row whose whole mass is residual is -inf throughout: it has
            no target and must not be used (`distillkit.losses.objective` drops it).
        residual: [N] probability that no student token stands for.
    """

    log_target: Tensor
    residual: Tensor


@dataclass(frozen=True, eq=False)
class BytePrefixMap:
    """The map from the teacher's ids to the student's.

    Attributes:
        student_ids: [len(teacher)] int64; `residual_id` where there is no student token.
        student_size: tokens of the student's tokenizer.
    """

    student_ids: Tensor
    student_size: int

    @property
    def residual_id(self) -> int:
        """One past the last student id."""
        return self.student_size

    @classmethod
    def build(cls, teacher: TokenBytes, student: TokenBytes, *, map_eos: bool = True) -> BytePrefixMap:
        """Map every teacher token to the longest student token that is a prefix of its bytes.

        Where several student tokens spell the same bytes, the one that the student's tokenizer writes is meant
        (`TokenBytes.shadowed`): mass on a byte-fallback token that never occurs would be lost. The teacher's EOS
        becomes the student's EOS if both have one and `map_eos`; every other special token is residual.
        """
        ids = student.ids_by_bytes
        longest = max(map(len, ids), default=0)

        def first_token(piece: bytes) -> int:
            prefixes = (piece[:end] for end in range(min(len(piece), longest), 0, -1))
            return next((ids[prefix] for prefix in prefixes if prefix in ids), len(student))

        student_ids = torch.tensor([first_token(piece or b"") for piece in teacher.pieces], dtype=torch.long)
        if teacher.eos_id is not None:
            student_ids[teacher.eos_id] = len(student) if student.eos_id is None or not map_eos else student.eos_id
        return cls(student_ids, len(student))

    def to(self, device: torch.device) -> BytePrefixMap:
        """The same map on another device."""
        return BytePrefixMap(self.student_ids.to(device), self.student_size)

    def project(self, teacher_logits_NU: Tensor, columns: int | None = None) -> Projection:
        """Teacher logits -> targets over the student's columns, at temperature 1 (`temper` comes after).

        Teacher columns beyond its tokenizer are cut before the softmax, so padding carries no probability; student
        columns beyond its tokenizer get none, and what maps beyond `columns` is residual. In float32, or float64 if
        the logits are; a mass below the smallest float counts as zero.

        Args:
            teacher_logits_NU: [N, U].
            columns: V, the width of the student's head; default: the size of its tokenizer.
        """
        width = self.student_size if columns is None else columns
        used = min(teacher_logits_NU.shape[1], len(self.student_ids))
        dtype = torch.float64 if teacher_logits_NU.dtype == torch.float64 else torch.float32
        probabilities = torch.softmax(teacher_logits_NU[:, :used].to(dtype), dim=-1)
        mapped = self.student_ids[:used].to(probabilities.device)
        # Of the residual id and of ids that the head lacks, one more column.
        mapped = mapped.masked_fill((mapped >= width) | (mapped == self.residual_id), width)
        masses = probabilities.new_zeros(len(probabilities), width + 1).index_add_(1, mapped, probabilities)
        target, residual = masses[:, :width], masses[:, width]
        total = target.sum(-1, keepdim=True)
        # Nothing mapped: log 0 - log 1 keeps the row at -inf, where log 0 - log 0 would be NaN.
        log_total = total.masked_fill(total == 0, 1).log()
        return Projection(target.log() - log_total, residual)


@dataclass(frozen=True, eq=False)
class AlignedRows:
    """The rows of one text at which the student can learn from the teacher.

    Rows count in the model's input [BOS?] + tokens + [EOS?]; row r predicts the input at r + 1.

    Attributes:
        student_rows, teacher_rows: [k] int64, ascending, in pairs.
        positions, positions_aligned: predictions that the student makes of this text (EOS included if it trains
            it), and those that have a teacher row.
        bytes, bytes_aligned: UTF-8 bytes of the student's predicted tokens, and of those with a teacher row.
    """

    student_rows: np.ndarray
    teacher_rows: np.ndarray
    positions: int
    positions_aligned: int
    bytes: int
    bytes_aligned: int


def aligned_rows(
    student: Encoding,
    teacher: Encoding,
    text: bytes,
    *,
    student_start: bool,
    teacher_start: bool,
    student_has_eos: bool,
    teacher_has_eos: bool,
) -> AlignedRows:
    """Pair the rows at which both models have read the same bytes and the target is meaningful.

    A model that has read k of its tokens stands at byte ends[k-1] (0 for k = 0, which exists only with a start
    token) and predicts token k. Both at the same byte are a pair, unless

    - one must still write the dummy space before the first word and the other must not: the next tokens then start
      with different bytes (pairs at byte 0 where both or neither do are kept);
    - the true next student token ends after the true next teacher token: the teacher's token is then only the
      beginning of the student's, and the longest prefix of it is a wrong answer;
    - the next two bytes are both ASCII white space (a pending dummy space counts): tokenizers split runs too
      differently, and BPM is known to fail there;
    - the text is over and not both sides train an EOS: there is nothing to predict.

    Args:
        student, teacher: the two encodings of `text`, without special tokens.
        text: the UTF-8 bytes that both spell.
        student_start, teacher_start: a start token stands in front of the tokens.
        student_has_eos, teacher_has_eos: an EOS follows the tokens and is a target / is predicted in earnest.
    """
    student_ends, student_read = _standing(student, student_start)
    teacher_ends, teacher_read = _standing(teacher, teacher_start)
    in_student, in_teacher = shared_boundaries(student_ends, teacher_ends)
    at = student_ends[in_student]
    # k, the number of tokens read; the next token of each side is token k.
    student_k, teacher_k = student_read[in_student], teacher_read[in_teacher]

    over = (student_k == len(student.ids)) & (teacher_k == len(teacher.ids))
    student_dummy = (student_k == 0) & student.dummy_space
    teacher_dummy = (teacher_k == 0) & teacher.dummy_space
    student_next = np.append(student.ends, len(text))[student_k]
    teacher_next = np.append(teacher.ends, len(text))[teacher_k]
    # White space at every byte; the padding lets "next" and "next but one" be read at the end of the text.
    white = np.append(np.isin(np.frombuffer(text, dtype=np.uint8), _WHITE_SPACE), [False, False])
    white_run = white[at] & (white[at + 1] | student_dummy)
    keep = (student_dummy == teacher_dummy) & (student_next <= teacher_next) & ~white_run
    keep &= ~over | (student_has_eos and teacher_has_eos)

    first = 0 if student_start or not student.ids else 1  # Without a start token nothing predicts the first token.
    skipped_bytes = int(student.ends[0]) if first else 0
    student_k, teacher_k = student_k[keep], teacher_k[keep]
    return AlignedRows(
        # After k tokens the last row read is k with a start token, k - 1 without.
        student_rows=student_k + int(student_start) - 1,
        teacher_rows=teacher_k + int(teacher_start) - 1,
        positions=len(student.ids) - first + int(student_has_eos and (student_start or bool(student.ids))),
        positions_aligned=len(student_k),
        bytes=len(text) - skipped_bytes,
        bytes_aligned=int((student_next[keep] - at[keep]).sum()),
    )


def _standing(encoding: Encoding, start: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bytes covered, and tokens read, at every row that exists."""
    ends = np.append(0, encoding.ends) if start else encoding.ends
    return ends, np.arange(len(ends)) + int(not start)
