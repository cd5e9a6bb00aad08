"""Batches that waste little padding, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

IGNORED = -100
# Batches are formed inside windows of this many batches: long enough for equal lengths, short enough to stay random.
_WINDOW = 32


class LengthGroupedSampler(Sampler[int]):
    """Indices in a random order in which neighbours have similar lengths.

    The order is a function of (seed, epoch): a resumed run sees the batches that an undisturbed one sees.

    Args:
        lengths: tokens of each example.
        batch_size: examples per batch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = list(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        window = self.batch_size * _WINDOW
        batches: list[list[int]] = []
        for start in range(0, len(order), window):
            part = sorted(order[start : start + window], key=lambda index: (self.lengths[index], index))
            batches += [part[begin : begin + self.batch_size] for begin in range(0, len(part), self.batch_size)]
        # Only the last window can end in a short batch, and it must stay last: batches are cut from the flat order.
        full = [batch for batch in batches if len(batch) == self.batch_size]
        short = [index for batch in batches if len(batch) < self.batch_size for index in batch]
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


class DistillationCollator:
    """Examples to the tensors of one batch.

    Every example has `student_ids` and `first_target`; white box adds `cache_index`, and where rows are paired
    `teacher_ids` and the columns of `AlignedRows` (the row at r predicts token r + 1).

    Returned tensors, B examples, T tokens after padding, R aligned rows:
        input_ids, attention_mask [B, T]: the student's input.
        labels [B, T]: the tokens themselves where they are targets, -100 elsewhere; not shifted.
        teacher_text [B]: black box: True where the tokens are the teacher's writing.
        teacher_input_ids, teacher_attention_mask [B, T_t]: white box.
        cache_index [B]: white box: each text's place in the teacher cache.
        student_row_index, teacher_row_index, end_row_index [R]: into the flattened [B·T], [B·T_t] and [B·T_t] rows;
            with skips and end_skips [R] as in `AlignedRows`; where rows are paired only.
        targets []: how many tokens of this batch are predicted (the -100 and the first of each example are not).
        example_ids [B]: for error messages.
    """

    def __init__(self, *, white_box: bool, aligned: bool) -> None:
        self.white_box = white_box
        self.aligned = aligned

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        students = [example["student_ids"] for example in examples]
        input_ids = pad_right(students, 0)
        mask = attention_mask(students, input_ids.shape[1])
        labels = input_ids.masked_fill(mask == 0, IGNORED)
        for index, example in enumerate(examples):
            labels[index, : example["first_target"]] = IGNORED
        batch = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "labels": labels,
            "targets": labels[:, 1:].ne(IGNORED).sum(),
            "example_ids": torch.tensor([example["id"] for example in examples]),
        }
        if not self.white_box:
            batch["teacher_text"] = torch.tensor([example["teacher_text"] for example in examples])
            return batch
        # Where the teacher's states of each text lie, should they be cached.
        batch["cache_index"] = torch.tensor([example.get("cache_index", -1) for example in examples])
        if not self.aligned:
            # Same tokenizer: the teacher reads the very same tokens.
            batch["teacher_input_ids"], batch["teacher_attention_mask"] = input_ids, mask
            return batch
        teachers = [example["teacher_ids"] for example in examples]
        teacher_ids = pad_right(teachers, 0)
        batch["teacher_input_ids"] = teacher_ids
        batch["teacher_attention_mask"] = attention_mask(teachers, teacher_ids.shape[1])
        student_width, teacher_width = input_ids.shape[1], teacher_ids.shape[1]
        batch["student_row_index"] = _flat_rows(examples, "student_rows", student_width)
        batch["teacher_row_index"] = _flat_rows(examples, "teacher_rows", teacher_width)
        batch["end_row_index"] = _flat_rows(examples, "end_rows", teacher_width)
        # Bytes, not rows: the same in every place of the batch.
        batch["skips"], batch["end_skips"] = (_flat_rows(examples, name, 0) for name in ("skips", "end_skips"))
        return batch


def _flat_rows(examples: Sequence[Mapping[str, Any]], column: str, width: int) -> torch.Tensor:
    rows = [
        torch.as_tensor(example[column], dtype=torch.long) + index * width for index, example in enumerate(examples)
    ]
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long)
