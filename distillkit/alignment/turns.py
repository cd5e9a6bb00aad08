"""Rows of two models that read one conversation in templates of their own: contents by bytes, turn by turn, and end of turn
with end of turn. What the templates write around them has no counterpart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distillkit.alignment.encoding import Encoding
from distillkit.alignment.rows import AlignedRows, aligned_rows
from distillkit.alignment.token_bytes import TokenBytes


@dataclass(frozen=True, eq=False)
class TurnPart:
    """A content, or a part of one, as one model reads it inside a conversation.

    Attributes:
        encoding: its tokens; bytes count from where it begins.
        first: the place of its first token in the conversation.
        end: that of the turn's end-of-turn token; None where there is none, or the part is not a target's.
    """

    encoding: Encoding
    first: int
    end: int | None = None


def tokens_of(ends: np.ndarray, begin: int, end: int) -> tuple[int, int]:
    """The range of the tokens that have any of the bytes [begin, end).

    Args:
        ends: [T] int64, `Encoding.ends`.
    """
    first = int(np.searchsorted(ends, begin, side="right"))
    if begin == end:
        return first, first
    # Tokens that together stand for a character may all end where it does.
    last = int(np.searchsorted(ends, end, side="right"))
    return first, last if last > first and ends[last - 1] == end else min(last + 1, len(ends))


def turn_part(
    whole: Encoding, data: bytes, begin: int, end: int, *, table: TokenBytes, end_token: int | None = None
) -> TurnPart:
    """The part [begin, end) of the bytes of a conversation.

    A space that the template writes in front of a content, and that its first token takes, is a dummy space; a token that
    takes anything else of the template is marked as unlike.

    Args:
        whole, data: the conversation as this model reads it.
        table: the bytes of its tokens.
        end_token: the place of the end-of-turn token.
    """
    first, last = tokens_of(whole.ends, begin, end)
    ids = whole.ids[first:last]
    ends = np.minimum(whole.ends[first:last], end) - begin
    unlike = np.zeros(len(ids), dtype=bool) if whole.unlike is None else whole.unlike[first:last].copy()
    dummy_space = False
    if ids:
        lead = data[int(whole.ends[first - 1]) if first else 0 : begin]
        piece = table.pieces[ids[0]] or b""
        spaced = piece == b" " + data[begin : int(whole.ends[first])]
        if spaced and lead in (b"", b" "):
            dummy_space, unlike[0] = True, False
        elif lead:
            unlike[0] = True
        if whole.ends[last - 1] > end:
            unlike[-1] = True
            dummy_space &= len(ids) > 1
    encoding = Encoding(ids, ends.astype(np.int64), dummy_space, unlike if unlike.any() else None)
    return TurnPart(encoding, first, end_token)


def aligned_turns(turns: Sequence[tuple[TurnPart, TurnPart, bytes]], *, positions: int, size: int) -> AlignedRows:
    """`aligned_rows` of every turn, and the rows at which both end it, as rows of the whole conversations.

    Args:
        turns: student's part, teacher's part, the bytes that both spell; in order.
        positions: predictions that the student makes of this conversation.
        size: UTF-8 bytes of the contents among them.
    """
    parts: list[np.ndarray] = []
    aligned_bytes = 0
    for student, teacher, data in turns:
        if data:
            found = aligned_rows(
                student.encoding, teacher.encoding, data, student_start=student.first > 0, teacher_start=teacher.first > 0,
                student_has_eos=False, teacher_has_eos=False,
            )  # fmt: skip
            ours, theirs = max(0, student.first - 1), max(0, teacher.first - 1)
            columns = (
                found.student_rows + ours,
                found.teacher_rows + theirs,
                found.skips,
                found.end_rows + theirs,
                found.end_skips,
            )
            parts.append(np.stack(columns))
            aligned_bytes += found.bytes_aligned
        if student.end and teacher.end:
            parts.append(np.array([[student.end - 1], [teacher.end - 1], [0], [teacher.end], [0]]))
    columns = np.concatenate([np.zeros((5, 0), dtype=np.int64), *parts], axis=1).astype(np.int64)
    return AlignedRows(
        *columns,
        positions=positions,
        positions_aligned=columns.shape[1],
        positions_on_boundaries=int((columns[2] == 0).sum()),
        bytes=size,
        bytes_aligned=aligned_bytes,
    )
