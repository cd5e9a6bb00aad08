"""Batches of like lengths: every text once, within the tokens that a batch may have, and never another way."""

from __future__ import annotations

import random

import pytest

from distillkit.evaluation.length_batches import batches_by_length, longest_first


@pytest.mark.parametrize("batch_tokens", [1, 30, 120, 4000])
def test_every_text_is_in_one_batch_that_is_as_large_as_it_may_be(batch_tokens: int) -> None:
    generator = random.Random(3)
    lengths = [generator.randint(0, 50) for _ in range(200)]
    batches = batches_by_length(lengths, batch_tokens)
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(200))
    assert order == sorted(range(200), key=lambda index: (-lengths[index], index))
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        longest = max(1, lengths[batch[0]])
        assert len(batch) * longest <= batch_tokens or len(batch) == 1
        assert following is None or (len(batch) + 1) * longest > batch_tokens


def test_a_text_that_is_too_long_is_a_batch_and_no_text_is_none() -> None:
    assert batches_by_length([500, 3], 120) == [[0], [1]]
    assert batches_by_length([], 120) == []


def test_a_range_of_a_larger_set_keeps_its_numbers() -> None:
    lengths = [9, 2, 5, 5, 8, 1]
    assert batches_by_length(lengths[2:5], 10, first=2) == [[4], [2, 3]]


def test_equal_lengths_stay_in_their_order_or_go_by_the_second_number() -> None:
    assert longest_first([3, 7, 3, 7]) == [1, 3, 0, 2]
    assert longest_first([(3, 1), (7, 2), (3, 4), (7, 2)]) == [1, 3, 2, 0]
