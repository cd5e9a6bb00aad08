"""Texts that the student wrote at earlier steps, to learn from again (DistiLLM, Ko et al. 2024, arXiv 2402.03898)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch

from distillkit.data.samples import Sample


class ReplayBuffer:
    """The newest samples, so many at most; the oldest go first.

    Args:
        capacity: 0 keeps none.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: deque[Sample] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, samples: Iterable[Sample]) -> None:
        self._kept.extend(samples)

    def draw(self, count: int, seed: int) -> list[Sample]:
        """Different ones, at random, the shortest first.

        Args:
            count: no more than are kept.
        """
        order = torch.randperm(len(self._kept), generator=torch.Generator().manual_seed(seed))[:count].tolist()
        return sorted((self._kept[place] for place in order), key=lambda one: len(one.prompt) + len(one.written))

    def state(self) -> list[list[Any]]:
        """As JSON, the oldest first."""
        return [[one.text, list(one.prompt), list(one.written), one.ended] for one in self._kept]

    def restore(self, state: Iterable[list[Any]]) -> None:
        """Become what `state` was taken of."""
        self._kept = deque((Sample(text, tuple(prompt), tuple(written), ended) for text, prompt, written, ended in state),
                           maxlen=self.capacity)  # fmt: skip
