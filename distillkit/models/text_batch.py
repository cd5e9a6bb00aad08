"""Texts that a model reads and writes together, token by token, in one of the ways that architectures need."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class DecodingWay:
    """How a model's texts are read on.

    Attributes:
        together: which texts share a batch: "any", padded on the left; those of one "length"; none, each is read "alone".
        mask: whether the mask of the padding is given "always" or only with the "prompt".
        state: what the model calls what it remembers; None where the whole text is read again for each token.
    """

    together: str
    mask: str = "always"
    state: str | None = None

    @property
    def padded(self) -> bool:
        """Whether padding stands before the shorter texts of a batch."""
        return self.together == "any"

    def batches(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Which prompts share a batch: their places, each once."""
        if self.padded:
            return [[*range(len(prompts))]]
        found: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompts):
            found.setdefault(len(prompt) if self.together == "length" else -row, []).append(row)
        return list(found.values())

    def words(self) -> str | None:
        """What a user should know of it; None where there is nothing to say."""
        if self.state is None:
            return "it reads its whole text again for every token, which is slow"
        return {
            "any": None,
            "length": "only prompts of one length are read together, so that padding changes nothing",
            "alone": "prompts are read one by one, as its state does not allow more",
        }[self.together]


class TextBatch:
    """The state of b texts that go through the model together.

    Args:
        prompts: b token id sequences, none empty; of one length where the way does not pad.
        device: where the model is.
    """

    def __init__(
        self, model: nn.Module, prompts: Sequence[Sequence[int]], device: torch.device, way: DecodingWay
    ) -> None:
        width = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.long)
            mask[row, width - len(prompt) :] = 1
        self._model: Any = model
        self._way = way
        self._ids, self._mask = ids.to(device), mask.to(device)
        self._positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self._state: Any = None
        self._last: Tensor | None = None
        accepted = inspect.signature(self._model.forward).parameters
        # ALiBi models take the positions from the mask and have no such argument; unpadded texts need neither.
        self._takes_positions = way.padded and "position_ids" in accepted
        self._only_last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def logits(self) -> Tensor:
        """[b, V] logits of the next tokens."""
        if self._last is None:
            self._last = self._read()
        return self._last

    def _read(self) -> Tensor:
        # Only the newest token is read where a state holds the rest; architectures without one read all again.
        new = slice(None) if self._state is None else slice(-1, None)
        arguments: dict[str, Any] = {"input_ids": self._ids[:, new], **self._only_last}
        if self._way.mask == "always" or (self._way.padded and self._state is None):
            arguments["attention_mask"] = self._mask
        if self._takes_positions:
            arguments["position_ids"] = self._positions[:, new]
        if self._state is not None and self._way.state is not None:
            arguments[self._way.state] = self._state
        output = self._model(**arguments, use_cache=self._way.state is not None)
        self._state = None if self._way.state is None else getattr(output, self._way.state, None)
        return output.logits[:, -1]

    def append(self, tokens_b: Tensor, writing_b: Tensor) -> None:
        """Add the next token of each text, as `Decoding.append`."""
        self._ids = torch.cat([self._ids, tokens_b[:, None]], dim=1)
        self._mask = torch.cat([self._mask, writing_b[:, None].to(self._mask.dtype)], dim=1)
        following = self._positions[:, -1:] + writing_b[:, None].to(self._positions.dtype)
        self._positions = torch.cat([self._positions, following], dim=1)
        # What no text of an unpadded batch needs is not computed: its positions might not even exist.
        if self._way.padded or bool(writing_b.any()):
            self._last = None
