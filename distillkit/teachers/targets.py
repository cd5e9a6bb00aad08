"""The teacher's distributions in the student's tokens: over the ids that mean the same, or by byte prefixes.

Rows are indices into flattened [B·T] positions; row r predicts token r + 1. Each maker splits its work in two: `prepare`
is what follows from the batch alone and runs on the processor where batches are made; `soft_targets` is what needs the
teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from distillkit import registry
from distillkit.alignment.bpm import BytePrefixMap, Realised, Restriction
from distillkit.alignment.first_token import FirstTokens, canonical_first, exact_twin
from distillkit.alignment.rows import LEAD
from distillkit.alignment.token_bytes import TokenBytes, common_ids
from distillkit.data.batching import AlignedBatch
from distillkit.data.text_encoder import TextEncoders
from distillkit.device.number_formats import widen
from distillkit.losses.chunked import SoftTargets, rows_per_chunk
from distillkit.losses.mapped_mass import MappedMass
from distillkit.losses.target_rows import restrict_columns
from distillkit.settings.parameters import Parameters
from distillkit.teachers.protocol import Teacher


def teacher_signal(config: Parameters, encoders: TextEncoders, teacher: Teacher, *, paired: bool) -> Any:
    """What a student learns from `teacher`: the plain distributions over one vocabulary, or the alignment that the
    configuration names.

    Args:
        paired: whether rows are paired by an alignment (`TrainingContext.pairs_rows`).

    Returns:
        A `TargetMaker`; of an alignment with a loss of its own a `training.objectives.Objective`.
    """
    if not paired:
        return common_tokens(teacher, encoders)
    name = "bpm" if config.alignment == "auto" else config.alignment
    return registry.resolve(registry.ALIGNMENTS, name)(teacher, encoders, config)


def token_tables(encoders: TextEncoders) -> tuple[TokenBytes, TokenBytes]:
    """(teacher's, student's) bytes of tokens.

    Raises:
        ValueError: those of a tokenizer are not known; prepare-data refuses such a pair in white box.
    """
    teacher, student = encoders.teacher.table, encoders.student.table
    if teacher is None or student is None:
        raise ValueError("white box needs token bytes")
    return teacher, student


def next_ids(ids_BT: Tensor) -> np.ndarray:
    """[B·T] the id that each row predicts; -1 behind the last.

    Args:
        ids_BT: [B, T], on the processor.
    """
    ids = ids_BT.numpy()
    return np.concatenate([ids[:, 1:], np.full((len(ids), 1), -1)], axis=1).reshape(-1)


# --- one tokenizer ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OwnEnds:
    """One vocabulary, and other start and end tokens around the texts: what the teacher's rows mean to the student.

    Attributes:
        start_shift: `TextEncoders.start_shift`.
        student_end, teacher_end: the end tokens; None where there is none.
        parse: special tokens that the texts name are read as tokens, so the teacher's end token may stand inside a text.
    """

    start_shift: int
    student_end: int | None
    teacher_end: int | None
    parse: bool

    @classmethod
    def of(cls, encoders: TextEncoders) -> OwnEnds | None:
        """Those of a pair; None where both have the same tokens around a text."""
        student, teacher = encoders.student, encoders.teacher
        if (student.start_id, student.end_id) == (teacher.start_id, teacher.end_id) and not encoders.start_shift:
            return None
        return cls(encoders.start_shift, student.end_id, teacher.end_id, student.parse)

    @property
    def move(self) -> tuple[int, int] | None:
        """(the teacher's end token, the student's), where the probability of one belongs to the other."""
        if self.student_end is None or self.teacher_end is None or self.student_end == self.teacher_end:
            return None
        return self.teacher_end, self.student_end

    def teacher_column(self, logits_NU: Tensor) -> Tensor | None:
        """[N] a copy of the teacher's logits of its end token; None where nothing is moved."""
        move = self.move
        return logits_NU[:, move[0]].clone() if move is not None and move[0] < logits_NU.shape[1] else None

    def moved(self, restricted_NV: Tensor, theirs_N: Tensor, rows_N: Tensor | None = None) -> Tensor:
        """The teacher's probability of its end token added to that of the student's end token: end of text is end of text
        by whatever name. Log-weights of temperature 1; changed in place.

        Args:
            restricted_NV: the teacher's logits in the student's columns.
            theirs_N: what `teacher_column` gave before they were restricted.
            rows_N: bool, the rows at which it is moved; None for all.
        """
        move, columns = self.move, restricted_NV.shape[1]
        if move is None or move[1] >= columns:
            return restricted_NV
        everywhere = rows_N is None
        added = torch.logaddexp(restricted_NV[:, move[1]], theirs_N)
        if not everywhere:
            added = torch.where(rows_N, added, restricted_NV[:, move[1]])
        if move[0] < columns:
            kept = restricted_NV[:, move[0]]
            restricted_NV[:, move[0]] = -torch.inf if everywhere else kept.masked_fill(rows_N, -torch.inf)
        restricted_NV[:, move[1]] = added
        return restricted_NV


class CommonTokens:
    """One tokenizer: the teacher's distribution at every target, over the ids that mean the same to both.

    Args:
        teacher: hidden states and head.
        common: [C] bool, the ids that mean the same to both.
        ends: where the two have other start or end tokens. Then rows without a counterpart have no target, and the
            teacher's probability of its end token counts for the student's (where special tokens are parsed, at the end
            of a text only).

    Attributes:
        mass: stays empty: nothing is mapped.
    """

    def __init__(self, teacher: Teacher, common: Tensor, ends: OwnEnds | None = None) -> None:
        self.teacher = teacher
        self.common = common
        self.ends = ends
        self.mass = MappedMass()

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The rows of both sides that belong together; nothing where the two read the very same."""
        if self.ends is None:
            return {}
        width, teacher_width = batch["labels"].shape[1], batch["teacher_input_ids"].shape[1]
        lengths = torch.tensor(batch["host"].teacher_lengths)
        texts, rows = batch["target_rows"] // width, batch["target_rows"] % width + self.ends.start_shift
        places = ((rows >= 0) & (rows < lengths[texts] - 1)).nonzero()[:, 0]
        teacher_rows = texts[places] * teacher_width + rows[places]
        prepared = {"rows": places, "teacher_rows": teacher_rows}
        if self.ends.parse and self.ends.move is not None:
            following = torch.from_numpy(next_ids(batch["teacher_input_ids"]))[teacher_rows]
            theirs, ours = self.ends.move
            prepared["ending"] = (following == theirs) & (batch["target_ids"][places] == ours)
        return prepared

    def soft_targets(self, batch: Mapping[str, Any]) -> SoftTargets:
        rows = batch["target_rows"]
        if self.ends is None:
            hidden = self.teacher.hidden(batch).index_select(0, rows)
            return _CommonColumns(torch.arange(len(rows), device=rows.device), hidden, self.teacher, self.common)
        prepared = batch["prepared"]
        hidden = self.teacher.hidden(batch).index_select(0, prepared["teacher_rows"])
        return _CommonColumns(prepared["rows"], hidden, self.teacher, self.common, self.ends, prepared.get("ending"))


@dataclass(frozen=True)
class _CommonColumns:
    rows: Tensor
    hidden_RD: Tensor
    teacher: Teacher
    common: Tensor
    ends: OwnEnds | None = None
    ending: Tensor | None = None

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        # The teacher's padded columns, and tokens that the student lacks, carry no probability.
        logits = self.teacher.head(self.hidden_RD[begin:end])
        theirs = None if self.ends is None else self.ends.teacher_column(logits)
        if logits.shape[1] < columns:
            restricted = restrict_columns(logits, self.common, columns)
        else:
            # Mostly a few special tokens: writing on these alone saves two copies of everything.
            common = functional.pad(self.common[:columns], (0, max(0, columns - len(self.common))), value=False)
            foreign = (~common).nonzero()[:, 0].to(logits.device)
            restricted = logits[:, :columns].index_fill_(1, foreign, -torch.inf)
        if self.ends is None or theirs is None:
            return restricted
        return self.ends.moved(restricted, theirs, None if self.ending is None else self.ending[begin:end])


def common_tokens(teacher: Teacher, encoders: TextEncoders) -> CommonTokens:
    """The plain distributions over the ids that mean the same to both.

    Raises:
        ValueError: a tokenizer's bytes are not known.
    """
    return CommonTokens(teacher, torch.from_numpy(common_ids(*token_tables(encoders))), OwnEnds.of(encoders))


# --- across tokenizers -----------------------------------------------------------------------------------------------


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
