"""Shared boundaries of two encodings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillkit.alignment.boundaries import shared_boundaries

ENDS = st.lists(st.integers(0, 30), max_size=25).map(sorted)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([3, 5, 9], [2, 5, 9], [(1, 1), (2, 2)]),
        ([0, 3], [0, 0, 1, 3], [(0, 1), (1, 3)]),
        ([2, 2, 4], [2, 4, 4], [(1, 0), (2, 2)]),
        ([1, 2], [3], []),
        ([], [3], []),
        ([], [], []),
    ],
)
def test_a_boundary_belongs_to_the_last_token_that_ends_there(a, b, expected):
    first, second = shared_boundaries(np.array(a, dtype=np.int64), np.array(b, dtype=np.int64))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected


@given(a=ENDS, b=ENDS)
def test_against_two_dictionaries(a, b):
    last_a = {end: index for index, end in enumerate(a)}
    last_b = {end: index for index, end in enumerate(b)}
    expected = [(last_a[end], last_b[end]) for end in sorted(last_a.keys() & last_b.keys())]
    first, second = shared_boundaries(np.array(a, dtype=np.int64), np.array(b, dtype=np.int64))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected
    swapped = shared_boundaries(np.array(b, dtype=np.int64), np.array(a, dtype=np.int64))
    assert (swapped[0].tolist(), swapped[1].tolist()) == (second.tolist(), first.tolist())
