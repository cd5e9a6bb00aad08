"""What the losses ask of a teacher: hidden states of a batch, and logits of some of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Teacher(Protocol):
    """A teacher, run on the spot or remembered."""

    def hidden(self, batch: Mapping[str, Tensor]) -> Tensor:
        """[B·T_t, D_t] last hidden states of `teacher_input_ids`, without a graph."""
        ...

    def head(self, hidden_nD: Tensor) -> Tensor:
        """[n, D_t] -> [n, U] logits, without a graph; whoever asks may write on them, and the next call may too."""
        ...
