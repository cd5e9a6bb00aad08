"""Order and shape of batches."""

from __future__ import annotations

import torch

from distillkit.data.batching import IGNORED, DistillationCollator, LengthGroupedSampler


def test_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = [(index * 37) % 100 + 1 for index in range(203)]
    first = LengthGroupedSampler(lengths, 8, seed=1)
    torch.manual_seed(0)
    order = list(first)
    torch.manual_seed(99)
    assert list(LengthGroupedSampler(lengths, 8, seed=1)) == order
    assert sorted(order) == list(range(203))
    assert list(LengthGroupedSampler(lengths, 8, seed=2)) != order
    first.set_epoch(1)
    assert list(first) != order


def test_batches_waste_less_than_random_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, 256, (512,), generator=generator).tolist()

    def padded(order: list[int]) -> int:
        batches = [order[start : start + 8] for start in range(0, len(order), 8)]
        return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)

    grouped = padded(list(LengthGroupedSampler(lengths, 8, seed=3)))
    assert grouped < 1.1 * sum(lengths)
    assert padded(list(range(512))) > 1.5 * sum(lengths)


def test_micro_batches_of_a_step_have_like_lengths_too() -> None:
    """A step of 32 is cut into 8 of 4: as little padding as in batches of 4, up to the ends of the steps."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, 256, (512,), generator=generator).tolist()
    order = list(LengthGroupedSampler(lengths, 32, seed=3))
    for begin in range(0, len(order), 32):
        step = [lengths[index] for index in order[begin : begin + 32]]
        assert step == sorted(step)


def test_masks_go_by_length_not_by_token_id() -> None:
    examples = [
        {"id": 5, "student_ids": [1, 0, 0, 7], "first_target": 1},
        {"id": 9, "student_ids": [1, 4], "first_target": 1},
    ]
    batch = DistillationCollator(white_box=True, aligned=False)(examples)
    assert batch["input_ids"].shape == (2, 4)
    assert batch["attention_mask"].sum(1).tolist() == [4, 2]
    assert batch["labels"][0].tolist() == [IGNORED, 0, 0, 7]
    assert (batch["host"].targets, batch["host"].example_ids) == (4, [5, 9])
    # Row r predicts token r + 1.
    assert (batch["target_rows"].tolist(), batch["target_ids"].tolist()) == ([0, 1, 2, 4], [0, 0, 7, 4])


def test_rows_point_into_the_flattened_batch() -> None:
    examples = [
        {
            "id": 0,
            "student_ids": [1, 2, 3],
            "teacher_ids": [9, 8],
            "student_rows": [0, 2],
            "teacher_rows": [0, 1],
            "skips": [0, 0],
            "end_rows": [1, 1],
            "end_skips": [0, 2],
            "first_target": 1,
        },
        {
            "id": 1,
            "student_ids": [1] * 9,
            "teacher_ids": [9] * 3,
            "student_rows": [8],
            "teacher_rows": [2],
            "skips": [3],
            "end_rows": [2],
            "end_skips": [4],
            "first_target": 1,
        },
    ]
    batch = DistillationCollator(white_box=True, aligned=True)(examples)
    assert batch["input_ids"].shape == (2, 9)
    rows = batch["host"].rows
    assert rows.student_rows.tolist() == [0, 2, 9 + 8]
    assert rows.teacher_rows.tolist() == [0, 1, 3 + 2]
    assert rows.end_rows.tolist() == [1, 1, 3 + 2]
    assert (rows.skips.tolist(), rows.end_skips.tolist()) == ([0, 0, 3], [0, 2, 4])
    assert batch["host"].teacher_lengths == [2, 3]
