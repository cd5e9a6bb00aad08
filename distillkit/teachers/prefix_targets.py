"""Across tokenizers: the teacher's distributions in the student's tokens by byte prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillkit.alignment.bpm import BytePrefixMap, Realised, Restriction
from distillkit.alignment.first_token import FirstTokens, canonical_first, exact_twin
from distillkit.alignment.rows import LEAD
from distillkit.data.batching import AlignedBatch
from distillkit.data.text_encoder import TextEncoders, token_tables
from distillkit.device.number_formats import widen
from distillkit.losses.chunked import SoftTargets, rows_per_chunk
from distillkit.losses.mapped_mass import MappedMass
from distillkit.losses.target_rows import next_ids
from distillkit.settings.parameters import Parameters
from distillkit.teachers.protocol import Teacher


def prefix_map_of(encoders: TextEncoders, first: FirstTokens | None = None) -> BytePrefixMap:
    """The map from the teacher's tokens to the student's; special tokens go by their names where texts name them or
    templates write them, and the tokens that end an answer go together.

    Args:
        first: as for `BytePrefixMap.build`.

    Raises:
        ValueError: a tokenizer's bytes are not known.
    """
    teacher, student = token_tables(encoders)
    ours, theirs = encoders.student.end_of_turn, encoders.teacher.end_of_turn
    return BytePrefixMap.build(
        teacher, student, first=first, map_names=encoders.student.parse or ours is not None,
        ends_of_turn=None if ours is None or theirs is None else (theirs, ours),
    )  # fmt: skip


class BytePrefix:
    """Byte-prefix marginalisation at the aligned rows.

    With the map of exact twins it is the distribution over the shared vocabulary alone.

    Args:
        teacher: hidden states and head.
        prefix_map: from the teacher's tokens to the student's.
        only: which rows are used: "all"; "boundaries", where both stand at the same byte; "twins", where the next token of
            both is the same.
        realised: whether the teacher token that is met goes to the student's next token.

    Attributes:
        mass: how much of the teacher's probability the student has tokens for.
    """

    def __init__(
        self, teacher: Teacher, prefix_map: BytePrefixMap, *, only: str = "all", realised: bool = True
    ) -> None:
        self.teacher = teacher
        self.prefix_map = prefix_map
        self.only = only
        self.realised = realised
        self.mass = MappedMass()

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The rows that are used, the tokens that are met there, and what can follow inside a teacher token."""
        aligned = self._used(batch["host"].rows)
        following = next_ids(batch["teacher_input_ids"])
        prepared: dict[str, Any] = {
            "rows": torch.searchsorted(batch["target_rows"], torch.from_numpy(aligned.student_rows)),
            "teacher_rows": torch.from_numpy(aligned.teacher_rows),
            "restrictions": _Kept(self._restrictions(aligned, following)),
        }
        if self.realised:
            prepared["teacher_ids"] = torch.from_numpy(following[aligned.teacher_rows])
            prepared["student_ids"] = torch.from_numpy(next_ids(batch["input_ids"])[aligned.student_rows])
            prepared["spelled_on"] = self._spelled_on(aligned, following)
        return prepared

    def soft_targets(self, batch: Mapping[str, Any]) -> SoftTargets:
        prepared = batch["prepared"]
        hidden = self.teacher.hidden(batch)
        realised = None
        if self.realised:
            onward = self._onward(prepared["spelled_on"], len(prepared["rows"]), hidden)
            realised = Realised(prepared["teacher_ids"], prepared["student_ids"], onward)
        return _Marginalised(
            rows=prepared["rows"],
            hidden_RD=hidden.index_select(0, prepared["teacher_rows"]),
            realised=realised,
            restrictions=prepared["restrictions"].value,
            targets=self,
        )

    def _used(self, aligned: AlignedBatch) -> AlignedBatch:
        if self.only == "twins":
            return aligned.where(aligned.twins)
        keep = aligned.skips == 0 if self.only == "boundaries" else np.ones(len(aligned.skips), dtype=bool)
        return aligned.where(keep if self.realised else keep & ~aligned.crossing)

    def _restrictions(self, aligned: AlignedBatch, following: np.ndarray) -> list[tuple[int, Restriction]]:
        """What can follow at the rows inside a teacher token, in ascending order."""
        restrictions: list[tuple[int, Restriction]] = []
        for row in np.flatnonzero(aligned.skips).tolist():
            skip = int(aligned.skips[row])
            if skip == LEAD:
                restrictions.append((row, self.prefix_map.restriction(b"", lead=True)))
            else:
                piece = self.prefix_map.teacher.pieces[following[aligned.teacher_rows[row]]] or b""
                restrictions.append((row, self.prefix_map.restriction(piece[:skip])))
        return restrictions

    def _spelled_on(self, aligned: AlignedBatch, following: np.ndarray) -> dict[str, Any]:
        """Where the student's token goes on beyond the teacher's next one, the teacher's tokens that spell the rest.

        Every link of such a chain is a whole token; the last one may be any token that begins with the bytes that are
        left.

        Returns:
            teacher_rows [m]: the distinct rows at which the links are predicted; links: for each link (the aligned row that
            it belongs to, its place among `teacher_rows`, [k] the ids that are accepted), in the order of the text.
        """
        links: list[tuple[int, int, np.ndarray]] = []
        for row in np.flatnonzero(aligned.crossing).tolist():
            end, left = int(aligned.end_rows[row]), int(aligned.end_skips[row])
            for teacher_row in range(int(aligned.teacher_rows[row]) + 1, end + 1):
                if teacher_row < end:
                    links.append((row, teacher_row, following[teacher_row : teacher_row + 1]))
                elif left > 0:
                    piece = self.prefix_map.teacher.pieces[following[teacher_row]] or b""
                    links.append((row, teacher_row, self.prefix_map.ids_with_prefix(piece[:left])))
        tokens = len(self.prefix_map.student_ids)
        distinct, place = np.unique(np.array([link[1] for link in links], dtype=np.int64), return_inverse=True)
        return {
            "teacher_rows": torch.from_numpy(distinct),
            "owners": _Kept([link[0] for link in links]),
            "places": _Kept(place.tolist()),
            "accepted": [torch.from_numpy(link[2][link[2] < tokens]) for link in links],
        }

    def _onward(self, spelled_on: Mapping[str, Any], rows: int, hidden: Tensor) -> Tensor:
        """[R] the chain rule: the probability that the teacher, having written its next token, writes the rest of the
        student's token."""
        precise = torch.float32 if hidden.device.type == "mps" else torch.float64  # MPS has no float64.
        onward = torch.ones(rows, dtype=precise, device=hidden.device)
        accepted: list[Tensor] = spelled_on["accepted"]
        if not accepted:
            return onward
        tokens = len(self.prefix_map.student_ids)
        chosen = hidden.index_select(0, spelled_on["teacher_rows"])
        probabilities = torch.cat(
            [
                torch.softmax(widen(self.teacher.head(part))[:, :tokens], -1)
                for part in chosen.split(rows_per_chunk(tokens, hidden.device))
            ]
        )
        width = probabilities.shape[1]
        links = [
            probabilities[place].index_select(0, ids if width == tokens else ids[ids < width]).sum()
            for place, ids in zip(spelled_on["places"].value, accepted, strict=True)
        ]
        factors = torch.stack(links).to(precise)
        # The links of a row are multiplied in their order, one round after the other: no row twice in a round.
        owners = np.array(spelled_on["owners"].value, dtype=np.int64)
        rank = np.arange(len(owners)) - np.searchsorted(owners, owners)
        for number in range(int(rank.max()) + 1):
            chosen_links = np.flatnonzero(rank == number)
            where = torch.from_numpy(owners[chosen_links]).to(hidden.device)
            onward[where] = onward[where] * factors[torch.from_numpy(chosen_links).to(hidden.device)]
        return onward


@dataclass(frozen=True, eq=False)
class _Kept:
    """A value that stays on the processor: whoever moves a batch to a device looks into lists and mappings only."""

    value: Any


@dataclass(frozen=True)
class _Marginalised:
    """The teacher's distributions in the student's tokens, a few rows at a time."""

    rows: Tensor
    hidden_RD: Tensor
    realised: Realised | None
    restrictions: list[tuple[int, Restriction]]
    targets: BytePrefix

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        logits, options = self._asked(begin, end)
        projected = self.targets.prefix_map.project(logits, columns, **options)
        self._count(projected.residual)
        return projected.log_target

    def target(self, begin: int, end: int, columns: int) -> Tensor:
        logits, options = self._asked(begin, end)
        masses = self.targets.prefix_map.masses(logits, columns, **options)
        self._count(masses.residual)
        return masses.target

    def _asked(self, begin: int, end: int) -> tuple[Tensor, dict[str, Any]]:
        realised = self.realised
        if realised is not None:
            realised = Realised(
                realised.teacher_ids[begin:end], realised.student_ids[begin:end], realised.onward[begin:end]
            )
        inside = [(row - begin, item) for row, item in self.restrictions if begin <= row < end]
        logits = self.targets.teacher.head(self.hidden_RD[begin:end])
        return logits, {"restrictions": inside, "realised": realised}

    def _count(self, residual: Tensor) -> None:
        self.targets.mass.add((1 - residual).sum(), len(residual))


def byte_prefix(teacher: Teacher, encoders: TextEncoders, config: Parameters) -> BytePrefix:
    """White box across tokenizers: the teacher's distribution was carried over to the student's vocabulary by byte-prefix
    marginalisation (soft targets); every true token was learned as well (hard targets)."""
    _, student_table = token_tables(encoders)
    canonical = config.prefix_map == "canonical"
    first = canonical_first(student_table, encoders.student.tokenizer) if canonical else None
    return BytePrefix(teacher, prefix_map_of(encoders, first))


def strict(teacher: Teacher, encoders: TextEncoders, config: Parameters) -> BytePrefix:
    """White box across tokenizers: where teacher and student write the same token next, the teacher's distribution over the
    tokens that both have (soft targets); every true token was learned as well (hard targets)."""
    _, student_table = token_tables(encoders)
    return BytePrefix(teacher, prefix_map_of(encoders, exact_twin(student_table)), only="twins", realised=False)
