"""White box from a server with another vocabulary: what it says of its tokens, carried over to the student's by their bytes.

The server's tokenizer is not here, and need not be: byte-prefix marginalisation wants to know of a teacher's token only what it
spells. The tokens that the server names of a text are the vocabulary of that text, and all others one token of which nothing
but the probability is known, the tail. The rest is what is done with a teacher that is here (`teachers.prefix_targets.BytePrefix`).

What of the tail is known, and what is not:

- at a shared boundary the tail is the probability of tokens that the server does not name. Some of these would be the student's
  token of a named one, so that such a token may be worth more than its target says, by the tail at most;
- inside a token of the server's only those that go on with the same bytes can follow. How much of the tail they have is not
  known: they count as nothing, and are worth tail / (named + tail) at most;
- where the student's token ends inside another token of the server's, only what is named of those that spell the rest counts:
  too little by (probability of the token before) x tail at most.

`covered` of a row is 1 less all that, as a share of the row: no probability of the target is wrong by more than 1 - covered, nor
is a sum of some of them (tests/invariants/test_served_bytes.py).
Rows below `LEAST_COVERED` have no target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillkit.alignment.bpm import BytePrefixMap
from distillkit.alignment.encoding import Encoding
from distillkit.alignment.first_token import FirstTokens
from distillkit.alignment.rows import AlignedRows, aligned_rows, crossing
from distillkit.alignment.token_bytes import TokenBytes
from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import ROW_COLUMNS
from distillkit.losses.chunked import PlainTargets
from distillkit.servers.spelled_prompt import SpelledPrompt, Spread
from distillkit.teachers.prefix_targets import BytePrefix
from distillkit.teachers.sparse_cache import SparseRows

LEAST_COVERED = 0.5
# Of the student's tokens, for which a row is whole while it is made.
_NUMBERS_AT_ONCE = 1 << 23


@dataclass
class CarriedOver:
    """The targets of a text.

    Attributes:
        rows: sparse, with a tail each.
        mapped: the sum over rows of the probability that is not of special tokens that the student lacks.
        tails: the sum over rows of the tails.
        thin: rows that are too little covered; untold: that lie where the server does not tell its tokens.
    """

    rows: SparseRows
    mapped: float = 0.0
    tails: float = 0.0
    thin: int = 0
    untold: int = 0


class ByteCarrier:
    """Carries a server's distributions over to the student.

    Args:
        student: the bytes of the student's tokens.
        first: the student's first token of a piece.
    """

    def __init__(self, student: TokenBytes, first: FirstTokens) -> None:
        self.student = student
        self._first = first
        self._known: dict[bytes, int] = {}

    def carry(
        self, prompt: SpelledPrompt, text: bytes, encoding: Encoding, example: Mapping[str, Any], *, starts: bool, ends: bool
    ) -> CarriedOver:  # fmt: skip
        """The targets of one text.

        Args:
            prompt: the server's tokens.
            text: what both spell; encoding: the student's tokens of it.
            example: the row that is trained on: `student_ids`, `first_target`.
            starts, ends: what the student reads has a start token, an end token.
        """
        vocabulary, teacher = self._vocabulary(prompt)
        last = prompt.spreads[-1]
        told = ends and last is not None and last.end > 0 and self.student.eos_id is not None
        untold = np.array([piece is None for piece in prompt.pieces])
        ids = [vocabulary.other if piece is None else vocabulary.ids[piece] for piece in prompt.pieces]

        def paired(unlike: np.ndarray | None) -> AlignedRows:
            return aligned_rows(
                encoding, Encoding(ids, prompt.ends, prompt.dummy_space, unlike), text, student_start=starts,
                teacher_start=prompt.starts, student_has_eos=ends, teacher_has_eos=told,
            )  # fmt: skip

        aligned = paired(untold if untold.any() else None)
        lost = paired(None).positions_aligned - aligned.positions_aligned if untold.any() else 0
        inputs = [*([vocabulary.other] if prompt.starts else []), *ids, *([vocabulary.end] if told else [])]
        spreads = prompt.spreads if prompt.starts else prompt.spreads[1:]
        logits, tails = vocabulary.logarithms(spreads[: len(inputs)], len(inputs))
        row = {**example, "id": 0, "teacher_ids": inputs}
        row |= {name: getattr(aligned, name) for name in ROW_COLUMNS}
        maker = BytePrefix(_Said(logits), BytePrefixMap.build(teacher, self.student, first=self.first))
        batch = DistillationCollator(white_box=True, aligned=True, prepare=maker.prepare)([row])
        carried = self._sparse(maker, batch, aligned, np.array(inputs), logits, tails)
        carried.untold = lost
        return carried

    def first(self, pieces: Sequence[bytes]) -> np.ndarray:
        """`first` of the student, remembered: texts share most of their tokens."""
        new = list(dict.fromkeys(piece for piece in pieces if piece not in self._known))
        self._known.update(zip(new, self._first(new).tolist(), strict=True))
        return np.fromiter((self._known[piece] for piece in pieces), np.int64, len(pieces))

    def _vocabulary(self, prompt: SpelledPrompt) -> tuple[_Vocabulary, TokenBytes]:
        pieces: dict[bytes, int] = {}
        for piece in prompt.pieces:
            if piece is not None:
                pieces.setdefault(piece, len(pieces))
        for spread in prompt.spreads:
            for piece in spread.tokens if spread is not None else ():
                pieces.setdefault(piece, len(pieces))
        vocabulary = _Vocabulary(pieces)
        size = len(pieces)
        table = TokenBytes(
            (*pieces, None, None, None), specials={size: "end", size + 1: "special", size + 2: "other"},
            eos_id=vocabulary.end,
        )  # fmt: skip
        return vocabulary, table

    def _sparse(
        self, maker: BytePrefix, batch: Mapping[str, Any], aligned: AlignedRows, inputs: np.ndarray, logits: Tensor,
        tails: np.ndarray,
    ) -> CarriedOver:  # fmt: skip
        targets = maker.soft_targets(batch)
        assert isinstance(targets, PlainTargets)
        rows, columns = aligned.student_rows, len(self.student)
        # What nobody named may begin with the same bytes; at a boundary all of it may follow.
        open_tails = tails[aligned.teacher_rows]
        closed_tails = np.where(aligned.skips <= 0, open_tails, 0.0)
        moved = np.zeros(len(rows))
        crosses = crossing(aligned.teacher_rows, aligned.end_rows, aligned.end_skips) & (aligned.end_skips > 0)
        for place in np.flatnonzero(crosses).tolist():
            begin, end = int(aligned.teacher_rows[place]), int(aligned.end_rows[place])
            moved[place] = float(logits[begin, inputs[begin + 1]].exp()) * tails[end]
        found: list[SparseRows] = []
        carried = CarriedOver(SparseRows.joined([_empty()]))
        at_once = max(1, _NUMBERS_AT_ONCE // columns)
        for begin in range(0, len(rows), at_once):
            some = slice(begin, min(begin + at_once, len(rows)))
            mass = targets.target(some.start, some.stop, columns).numpy()
            named = mass.sum(-1)
            whole = named + closed_tails[some]
            possible = named > 0
            some_named = np.where(possible, named, 1.0)
            doubt = open_tails[some] / (some_named + open_tails[some])
            doubt += moved[some] / (some_named + closed_tails[some])
            kept = possible & (1 - doubt >= LEAST_COVERED)
            carried.thin += int((~kept).sum())
            whole, tail = whole[kept], closed_tails[some][kept]
            places, ids = np.nonzero(mass[kept])
            found.append(
                SparseRows(
                    rows[some][kept], np.bincount(places, minlength=int(kept.sum())).astype(np.int64),
                    (tail / whole).astype(np.float32), ids.astype(np.int64),
                    (mass[kept][places, ids] / whole[places]).astype(np.float32),
                )
            )  # fmt: skip
            carried.tails += float((tail / whole).sum())
        if found:
            carried.rows = SparseRows.joined(found)
        carried.mapped = maker.mass.mapped * len(carried.rows.rows) / max(1, len(rows))
        return carried


def _empty() -> SparseRows:
    whole, broken = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    return SparseRows(whole, whole, broken, whole, broken)


def no_targets() -> CarriedOver:
    """Of a text of which the server's tokens cannot be told."""
    return CarriedOver(_empty())


@dataclass(frozen=True)
class _Vocabulary:
    """The server's tokens that are met in a text, their ids, and three more: the end of a text, special tokens, and all others."""

    ids: Mapping[bytes, int]

    @property
    def end(self) -> int:
        return len(self.ids)

    @property
    def other(self) -> int:
        return len(self.ids) + 2

    def logarithms(self, spreads: Sequence[Spread | None], rows: int) -> tuple[Tensor, np.ndarray]:
        """([rows, U] float64 logarithms of probabilities that add up to 1, [rows] those of all others)."""
        chances = np.zeros((rows, len(self.ids) + 3))
        for row, spread in enumerate(spreads):
            if spread is None:
                continue
            for piece, probability in spread.tokens.items():
                chances[row, self.ids[piece]] += probability
            chances[row, self.end] = spread.end
            chances[row, self.end + 1] = spread.special
        # What is rounded must not add up to more than 1.
        chances /= np.maximum(chances.sum(-1, keepdims=True), 1.0)
        chances[:, self.other] = np.clip(1 - chances.sum(-1), 0, 1)
        return torch.from_numpy(chances).log(), chances[:, self.other]


@dataclass(frozen=True)
class _Said:
    """A teacher whose distributions are there."""

    logarithms: Tensor

    def hidden(self, batch: Mapping[str, Any]) -> Tensor:
        return self.logarithms

    def head(self, hidden_nD: Tensor) -> Tensor:
        return hidden_nD
