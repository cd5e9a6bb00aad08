"""Rows are divided into slices that the cache holds, without a rest and without a row alone."""

from __future__ import annotations

import pytest
import torch

from distillkit.device.row_tiles import row_tiles

CPU = torch.device("cpu")


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8, 9, 16, 17, 128, 129])
@pytest.mark.parametrize("columns", [1, 32_000, 49_152, 151_936, 10_000_000])
def test_every_row_is_in_one_slice(rows: int, columns: int) -> None:
    slices = row_tiles(rows, columns, CPU)
    assert [row for part in slices for row in range(part.start, part.stop)] == list(range(rows))
    assert rows < 2 or min(part.stop - part.start for part in slices) > 1


def test_as_many_as_the_cache_holds() -> None:
    assert [part.stop - part.start for part in row_tiles(32, 49_152, CPU)] == [8, 8, 8, 8]
    assert [part.stop - part.start for part in row_tiles(8, 10_000_000, CPU)] == [4, 4]
    assert row_tiles(4096, 50, CPU) == [slice(0, 4096)]
    assert row_tiles(4096, 151_936, torch.device("meta")) == [slice(0, 4096)]
