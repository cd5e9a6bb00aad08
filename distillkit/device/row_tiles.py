"""A few rows of numbers at a time, for computations that pass over them again and again.

A softmax over a vocabulary and what follows are a dozen passes over rows of 50 000 numbers and more. On a CPU they are bound
by memory, unless the rows that are passed over lie in the cache: then a whole loss, its matrix products included, takes 0.3 to
0.65 of the time (benchmarks/speed/vocabulary.py). A GPU is better served with many rows at once.
"""

from __future__ import annotations

import itertools

import torch

# In fp32 1.5 MB, of which each thread has its share: about the second-level cache of a core.
_NUMBERS = 3 << 17
# Fewer rows than this gain nothing more, however wide they are.
_FEWEST = 4


def row_tiles(rows: int, columns: int, device: torch.device) -> list[slice]:
    """[0, rows) in slices of rows of `columns` numbers; no slice has one row alone, if there are more.

    That one row would be compiled anew where the pass over a tile is compiled: torch takes 1 for a constant.
    """
    size = rows if device.type != "cpu" else max(_FEWEST, _NUMBERS // max(1, columns))
    begins = list(range(0, rows, max(1, size))) or [0]  # Of nothing one slice, as `Tensor.split` gives.
    if len(begins) > 1 and rows - begins[-1] == 1:
        begins.pop()
    return [slice(begin, end) for begin, end in itertools.pairwise([*begins, rows])]
