"""The shares of the processes in a step, against the order of one process."""

from __future__ import annotations

import random

import pytest

from distillkit.data.batching import LengthGroupedSampler
from distillkit.data.step_shares import SharedBatches, SparedRows, share_of_step
from distillkit.errors import UsageError


@pytest.mark.parametrize(
    ("batch", "accumulation", "processes", "wanted"),
    [(8, 4, 1, (8, 4)), (8, 4, 2, (8, 2)), (8, 4, 8, (4, 1)), (8, 1, 2, (4, 1)), (8, 3, 2, (6, 2)), (7, 2, 2, (7, 1))],
)
def test_a_step_is_divided(batch: int, accumulation: int, processes: int, wanted: tuple[int, int]) -> None:
    share = share_of_step(batch, accumulation, processes)
    assert (share.batch_size, share.accumulation) == wanted
    assert share.batch_size * share.accumulation * processes == batch * accumulation


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(UsageError, match="4 processes cannot divide a step of 6 examples"):
        share_of_step(6, 1, 4)


@pytest.mark.parametrize("examples", [16, 19, 31, 33])
@pytest.mark.parametrize(("batch", "accumulation", "processes"), [(4, 2, 2), (4, 2, 4), (8, 1, 8), (1, 8, 2)])
def test_all_together_have_the_steps_of_one(examples: int, batch: int, accumulation: int, processes: int) -> None:
    lengths = [random.Random(examples).randrange(5, 60) for _ in range(examples)]
    share = share_of_step(batch, accumulation, processes)
    step = batch * accumulation

    def sampler() -> LengthGroupedSampler:
        return LengthGroupedSampler(lengths, step, seed=3)

    each = [SharedBatches(sampler(), share, rank, processes) for rank in range(processes)]
    for epoch in range(2):
        alone = sampler()
        for batches in (alone, *each):
            batches.set_epoch(epoch)
        order, own = list(alone), [list(batches) for batches in each]
        assert {len(batches) for batches in own} == {len(each[0])}
        for number, begin in enumerate(range(0, examples, step)):
            first = number * share.accumulation
            parts = [part for batches in own for part in batches[first : first + share.accumulation]]
            counted = sorted(index for part in parts for index in part if index >= 0)
            assert counted == sorted(order[begin : begin + step])
            assert all(0 < len(part) <= share.batch_size for part in parts)
            assert all(len(part) == 1 for part in parts if part[0] < 0)


def test_a_spare_example_says_so() -> None:
    rows = SparedRows([{"id": 0}, {"id": 1}])
    assert rows[1] == {"id": 1}
    assert rows[~1] == {"id": 1, "spare": True}
