"""Which rows of the teacher tell something about which rows of the student.

Rows count in a model's input [start?] + tokens + [end?]; the row at r predicts the input at r + 1. After k of its
tokens a model *stands* at a byte of the text. Every prediction of the student is placed in the teacher's reading:
behind the last teacher token that ends there or before (its row), and so many bytes into the teacher's next token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distillkit.alignment.encoding import Encoding

_WHITE_SPACE = np.frombuffer(b" \t\n\r\v\f", dtype=np.uint8)
LEAD = -1
"""As a skip: the student must still write the space before the first word, and the teacher writes none."""


@dataclass(frozen=True, eq=False)
class AlignedRows:
    """The rows of one text at which the student can learn from the teacher.

    The student's next token covers the text from (teacher row, skip) to (end row, end skip), a skip being the bytes of
    the teacher's next token, as its table spells them, that are behind. All arrays are [k] int64.

    Attributes:
        student_rows: ascending.
        teacher_rows: the last teacher row that has read no more than the student.
        skips: 0 on a shared boundary, more inside a teacher token, `LEAD` before a space that only the student writes.
        end_rows, end_skips: the same place after the student's next token.
        positions, positions_aligned: predictions that the student makes of this text (end of text included if it
            trains it), and those listed here.
        positions_on_boundaries: those listed here whose skip is 0.
        bytes, bytes_aligned: UTF-8 bytes of the student's predicted tokens, and of those listed here.
    """

    student_rows: np.ndarray
    teacher_rows: np.ndarray
    skips: np.ndarray
    end_rows: np.ndarray
    end_skips: np.ndarray
    positions: int
    positions_aligned: int
    positions_on_boundaries: int
    bytes: int
    bytes_aligned: int


def crossing(teacher_rows: np.ndarray, end_rows: np.ndarray, end_skips: np.ndarray) -> np.ndarray:
    """[k] bool: the student's next token extends beyond the teacher's next token; columns of `AlignedRows`, [k] int64."""
    return end_rows - teacher_rows - (end_skips == 0) > 0


def within(teacher_rows: np.ndarray, skips: np.ndarray, end_rows: np.ndarray, end_skips: np.ndarray) -> np.ndarray:
    """[k] bool: both stand at the same byte, and the student's next token does not extend beyond the teacher's; columns
    of `AlignedRows`, [k] int64."""
    return (skips == 0) & ~crossing(teacher_rows, end_rows, end_skips)


def twins(teacher_rows: np.ndarray, skips: np.ndarray, end_rows: np.ndarray, end_skips: np.ndarray) -> np.ndarray:
    """[k] bool: the next token of both covers the very same bytes; columns of `AlignedRows`, [k] int64."""
    return (skips == 0) & (end_rows == teacher_rows + 1) & (end_skips == 0)


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
    """Place every prediction of the student in the teacher's reading, and leave out those that mean nothing:

    - rows before the teacher has read anything (it has no start token);
    - runs of white space (the next two bytes are ASCII white space, a pending dummy space counts) unless the next
      token of both is the same: tokenizers split runs too differently, and byte prefixes are known to fail there;
    - tokens whose bytes in this text are not those of the vocabulary (`Encoding.unlike`), on either side, special tokens
      among them, unless both read a special token of the same name there;
    - the end of the text, unless both sides train an end token.

    In O(student tokens + teacher tokens + bytes).

    Args:
        student, teacher: the two encodings of `text`, without special tokens.
        text: the UTF-8 bytes that both spell.
        student_start, teacher_start: a start token stands in front of the tokens.
        student_has_eos, teacher_has_eos: the student trains an end token / the teacher was trained to predict one.
    """
    count, last = len(student.ids), len(teacher.ids)
    at = np.append(0, student.ends)  # After k tokens of the student, k = 0 … count.
    teacher_ends = np.append(0, teacher.ends)
    # How many teacher tokens end at or before each byte: counting instead of searching.
    ended = np.bincount(teacher.ends, minlength=len(text) + 1).cumsum()
    read = ended[at]
    skips = at - teacher_ends[read] + ((read == 0) & teacher.dummy_space & (last > 0))
    if student.dummy_space and count:
        read[0] = 0  # Both spaces pending, or only the student's.
        skips[0] = 0 if teacher.dummy_space else LEAD

    k, start = np.arange(count), int(teacher_start) - 1
    white = np.append(np.isin(np.frombuffer(text, dtype=np.uint8), _WHITE_SPACE), [False, False])
    pending = (k == 0) & student.dummy_space
    run = white[at[:-1]] & (white[at[:-1] + 1] | pending)
    teacher_rows, end_rows = read[:-1] + start, read[1:] + start
    keep = ~run | twins(teacher_rows, skips[:-1], end_rows, skips[1:])
    keep &= (teacher_rows >= 0) & (read[:-1] < last)
    if student.unlike is not None:
        keep &= ~student.unlike
    if teacher.unlike is not None:
        # The teacher's tokens from the one that is next to the last one that the student's token touches.
        odd = np.append(0, np.cumsum(teacher.unlike))
        keep &= odd[np.minimum(read[1:] + (skips[1:] > 0), last)] == odd[read[:-1]]

    if student.names and teacher.names:
        same_end = twins(teacher_rows, skips[:-1], end_rows, skips[1:]) & (teacher_rows >= 0) & (read[:-1] < last)
        for place, name in student.names.items():
            keep[place] |= bool(same_end[place]) and teacher.names.get(int(read[place])) == name

    first = 0 if student_start or not count else 1  # Without a start token nothing predicts the first token.
    keep[:first] = False
    rows = np.flatnonzero(keep)
    columns = [rows + int(student_start) - 1, teacher_rows[rows], skips[rows], end_rows[rows], skips[rows + 1]]
    # The end of the text, which both predict after their last token.
    student_end = count + int(student_start) - 1
    if student_has_eos and teacher_has_eos and student_end >= 0 and last + start >= 0:
        ending = (student_end, last + start, 0, last + start + 1, 0)
        columns = [np.append(column, value) for column, value in zip(columns, ending, strict=True)]
    columns = [column.astype(np.int64) for column in columns]
    return AlignedRows(
        *columns,
        positions=count - first + int(student_has_eos and student_end >= 0),
        positions_aligned=len(columns[0]),
        positions_on_boundaries=int((columns[2] == 0).sum()),
        bytes=len(text) - (int(student.ends[0]) if first else 0),
        bytes_aligned=int((at[rows + 1] - at[rows]).sum()),
    )
