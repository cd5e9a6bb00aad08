"""Batches that waste little padding, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from distillkit.alignment.rows import crossing, twins
from distillkit.data.examples import ROW_COLUMNS
from distillkit.losses.target_rows import IGNORED, target_rows

# Steps are formed inside windows of this many steps: long enough for equal lengths, short enough to stay random.
_WINDOW = 32


class LengthGroupedSampler(Sampler[int]):
    """Indices in a random order in which neighbours have similar lengths.

    The order is a function of (seed, epoch): a resumed run sees the batches that an undisturbed one sees. It depends on
    the examples of an optimizer step, and not on the micro-batches that they are computed in: these are cut from it, and
    as the examples of a step are in ascending order of length, those of a micro-batch have similar lengths too.

    Args:
        lengths: tokens of each example.
        step_examples: examples per optimizer step: of a micro-batch, times accumulation, times processes.
    """

    def __init__(self, lengths: Sequence[int], step_examples: int, seed: int) -> None:
        self.lengths = list(lengths)
        self.step_examples = step_examples
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        window = self.step_examples * _WINDOW
        steps: list[list[int]] = []
        for start in range(0, len(order), window):
            part = sorted(order[start : start + window], key=lambda index: (self.lengths[index], index))
            steps += [part[begin : begin + self.step_examples] for begin in range(0, len(part), self.step_examples)]
        # Only the last window can end in a short step, and it must stay last: batches are cut from the flat order.
        full = [step for step in steps if len(step) == self.step_examples]
        short = [index for step in steps if len(step) < self.step_examples for index in step]
        for position in torch.randperm(len(full), generator=generator).tolist():
            yield from full[position]
        yield from short


def pad_right(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Rows of token ids as one [B, T] tensor, T the longest row: never more than fits into a model's positions."""
    width = max((len(row) for row in rows), default=0)
    padded = torch.full((len(rows), width), value, dtype=torch.long)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.as_tensor(row, dtype=torch.long)
    return padded


def attention_mask(rows: Sequence[Sequence[int]], width: int) -> torch.Tensor:
    """[B, T] ones over the real tokens: by length, never by token id (0 and the padding id can be real tokens)."""
    lengths = torch.tensor([len(row) for row in rows])
    return (torch.arange(width)[None, :] < lengths[:, None]).long()


@dataclass(frozen=True, eq=False)
class AlignedBatch:
    """The aligned rows of a batch, R int64 numbers in each column, ascending by student row; on the processor.

    Attributes:
        student_rows: into the flattened [B·T] rows.
        teacher_rows, end_rows: into the flattened [B·T_t] rows.
        skips, end_skips: bytes, as in `AlignedRows`.
    """

    student_rows: np.ndarray
    teacher_rows: np.ndarray
    skips: np.ndarray
    end_rows: np.ndarray
    end_skips: np.ndarray

    @classmethod
    def of(cls, examples: Sequence[Mapping[str, Any]], student_width: int, teacher_width: int) -> AlignedBatch:
        """The columns of `AlignedRows` of each example, moved to its place in the flattened rows."""
        # Bytes stay what they are; rows begin where those of the text before end.
        widths = {"student_rows": student_width, "teacher_rows": teacher_width, "end_rows": teacher_width}
        columns = {}
        for name in ROW_COLUMNS:
            parts = [
                np.asarray(example[name], dtype=np.int64) + index * widths.get(name, 0)
                for index, example in enumerate(examples)
            ]
            columns[name] = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return cls(**columns)

    def where(self, keep: np.ndarray) -> AlignedBatch:
        """The rows for which `keep` [R] bool is true."""
        return AlignedBatch(*(getattr(self, name)[keep] for name in ROW_COLUMNS))

    @property
    def twins(self) -> np.ndarray:
        """[R] bool, see `alignment.rows.twins`."""
        return twins(self.teacher_rows, self.skips, self.end_rows, self.end_skips)

    @property
    def crossing(self) -> np.ndarray:
        """[R] bool, see `alignment.rows.crossing`."""
        return crossing(self.teacher_rows, self.end_rows, self.end_skips)


@dataclass(frozen=True, eq=False)
class HostColumns:
    """What of a batch is used on the processor: it never goes to the device, and so never has to come back.

    Attributes:
        example_ids: of the examples, for error messages.
        targets: how many tokens of this batch are predicted (the -100 and the first of each example are not).
        cache_index: each text's place in the teacher cache; empty in black box.
        teacher_lengths: tokens that the teacher reads of each text; empty in black box.
        rows: where rows are paired.
        sampled: whether the student wrote the texts itself (`training.on_policy`).
    """

    example_ids: list[int]
    targets: int
    cache_index: list[int]
    teacher_lengths: list[int]
    rows: AlignedBatch | None = None
    sampled: bool = False


class DistillationCollator:
    """Examples to one batch.

    Every example has `student_ids` and `first_target` (a conversation `target_spans`); white box adds `cache_index` and `teacher_ids` (default: the
    student's), and where rows are paired the columns of `AlignedRows` (the row at r predicts token r + 1).

    What is returned, for B examples, T tokens after padding, N targets:
        input_ids, attention_mask [B, T]: the student's input.
        labels [B, T]: the tokens themselves where they are targets, -100 elsewhere; not shifted.
        target_rows, target_ids [N]: the rows of the flattened [B·T] that have a target, and the targets
            (`losses.target_rows`).
        teacher_text [B]: black box: True where the tokens are the teacher's writing.
        teacher_input_ids, teacher_attention_mask [B, T_t]: white box.
        host: `HostColumns`.
        prepared: what `prepare` makes of all this.

    Args:
        white_box: whether the teacher reads the batch too.
        aligned: whether rows are paired; otherwise the teacher reads the student's tokens, inside
            its own start and end tokens where `teacher_ids` says so.
        prepare: what else the objective wants that follows from a batch alone (`Objective.prepare`). Tensors in it go to
            the device with the batch.
    """

    def __init__(
        self,
        *,
        white_box: bool,
        aligned: bool,
        prepare: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.white_box = white_box
        self.aligned = aligned
        self.prepare = prepare

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        students = [example["student_ids"] for example in examples]
        input_ids = pad_right(students, 0)
        mask = attention_mask(students, input_ids.shape[1])
        labels = input_ids.masked_fill(mask == 0, IGNORED)
        for index, example in enumerate(examples):
            _ignore_others(labels[index], example)
        rows, targets = target_rows(labels)
        batch: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "labels": labels,
            "target_rows": rows,
            "target_ids": targets,
        }
        host: dict[str, Any] = {"cache_index": [], "teacher_lengths": []}
        if not self.white_box:
            batch["teacher_text"] = torch.tensor([example["teacher_text"] for example in examples])
        else:
            host = self._teacher_side(examples, batch)
        batch["host"] = HostColumns([int(example["id"]) for example in examples], len(rows), **host)
        batch["prepared"] = self.prepare(batch) if self.prepare is not None else {}
        return batch

    def _teacher_side(self, examples: Sequence[Mapping[str, Any]], batch: dict[str, Any]) -> dict[str, Any]:
        """Add what the teacher reads; returns the teacher's part of `HostColumns`."""
        own = [example["student_ids"] for example in examples]
        texts = [example.get("teacher_ids", ids) for example, ids in zip(examples, own, strict=True)]
        if self.aligned or texts != own:
            ids = pad_right(texts, 0)
            batch["teacher_input_ids"], batch["teacher_attention_mask"] = ids, attention_mask(texts, ids.shape[1])
        else:
            batch["teacher_input_ids"], batch["teacher_attention_mask"] = batch["input_ids"], batch["attention_mask"]
        widths = batch["input_ids"].shape[1], batch["teacher_input_ids"].shape[1]
        return {
            # Where the teacher's states of each text lie, should they be cached.
            "cache_index": [int(example.get("cache_index", -1)) for example in examples],
            "teacher_lengths": [len(ids) for ids in texts],
            "rows": AlignedBatch.of(examples, *widths) if self.aligned else None,
        }


def _ignore_others(labels_T: torch.Tensor, example: Mapping[str, Any]) -> None:
    """Leave only what is a target: `target_spans` where there are any, else everything from `first_target` on."""
    spans = example.get("target_spans")
    if spans is None:
        labels_T[: example["first_target"]] = IGNORED
        return
    kept = torch.zeros_like(labels_T, dtype=torch.bool)
    for begin, end in spans:
        kept[begin:end] = True
    labels_T[~kept] = IGNORED
