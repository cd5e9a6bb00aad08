"""The frozen teacher of white-box distillation: its hidden states for a batch, counted and timed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.device.buffers import Buffers, linear_rows
from distillkit.device.precision import Compute
from distillkit.losses.linear_head import LinearHead
from distillkit.models.backbone_and_head import split_model
from distillkit.models.placement import is_spread


class LiveTeacher:
    """Runs the teacher's forward pass on the batches of the student's training.

    Args:
        model: the teacher, already in the format of `compute.teacher`.
        compute: where it runs; of one that is spread over several devices, the first.

    Attributes:
        tokens, seconds: what its forward passes have processed and taken so far, padding not counted; the head is
            applied later, a few rows at a time, and counts with the student's training.
    """

    def __init__(self, model: nn.Module, compute: Compute) -> None:
        placed = model if is_spread(model) else model.to(compute.device)
        self.model = placed.eval().requires_grad_(False)
        self.parts = split_model(self.model)
        self.device = compute.device
        self._buffers = Buffers()
        self.tokens = 0
        self.seconds = 0.0

    @property
    def head_layer(self) -> nn.Linear | None:
        """The linear layer that the head is; None where the model could not be taken apart."""
        return self.parts.head if self.parts.apart and isinstance(self.parts.head, nn.Linear) else None

    def hidden(self, batch: Mapping[str, Any]) -> Tensor:
        """[B·T_t, D_t] last hidden states of `teacher_input_ids`, without a graph, in the teacher's own format."""
        began = time.monotonic()
        hidden = self.hidden_states(batch["teacher_input_ids"], batch["teacher_attention_mask"])
        if hidden.device.type == "cuda":
            torch.cuda.synchronize(hidden.device)  # Or the clock would time the launch alone.
        self.tokens += sum(batch["host"].teacher_lengths)
        self.seconds += time.monotonic() - began
        return hidden

    def hidden_states(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """[B·T, D_t] last hidden states, not counted and not timed."""
        with torch.no_grad(), torch.autocast(ids_BT.device.type, enabled=False):
            return self.parts.hidden({"input_ids": ids_BT, "attention_mask": mask_BT}).flatten(0, 1)

    def head(self, hidden_nD: Tensor) -> Tensor:
        """[n, D_t] -> [n, U] logits, without a graph, in the teacher's own format; the next call may overwrite them."""
        with torch.no_grad(), torch.autocast(hidden_nD.device.type, enabled=False):
            layer = self.head_layer
            if layer is None or not LinearHead.is_plain(layer):
                return self.parts.head(hidden_nD)
            return linear_rows(self._buffers, "logits", hidden_nD, layer.weight, layer.bias)
