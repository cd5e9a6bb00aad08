"""The frozen teacher of white-box distillation: its hidden states for a batch, counted and timed."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distillkit.device.buffers import Buffers, linear_rows
from distillkit.device.precision import Compute
from distillkit.losses.linear_head import LinearHead
from distillkit.models.backbone_and_head import split_model


class LiveTeacher:
    """Runs the teacher's forward pass on the batches of the student's training.

    Args:
        model: the teacher, already in the format of `compute.teacher`.
        compute: where it runs.

    Attributes:
        tokens, seconds: what its forward passes have processed and taken so far, padding not counted; the head is
            applied later, a few rows at a time, and counts with the student's training.
    """

    def __init__(self, model: nn.Module, compute: Compute) -> None:
        self.model = model.to(compute.device).eval().requires_grad_(False)
        self.parts = split_model(self.model)
        self.device = compute.device
        self._buffers = Buffers()
        self.tokens = 0
        self.seconds = 0.0

    @property
    def head_layer(self) -> nn.Linear | None:
        """The linear layer that the head is; None where the model could not be taken apart."""
        return self.parts.head if self.parts.apart and isinstance(self.parts.head, nn.Linear) else None

    def hidden(self, batch: Mapping[str, Tensor]) -> Tensor:
        """[B·T_t, D_t] last hidden states of `teacher_input_ids`, without a graph, in the teacher's own format."""
        began = time.monotonic()
        inputs = {"input_ids": batch["teacher_input_ids"], "attention_mask": batch["teacher_attention_mask"]}
        device = batch["teacher_input_ids"].device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            hidden = self.parts.hidden(inputs).flatten(0, 1)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.tokens += int(batch["teacher_attention_mask"].sum())
        self.seconds += time.monotonic() - began
        return hidden

    def head(self, hidden_nD: Tensor) -> Tensor:
        """[n, D_t] -> [n, U] logits, without a graph, in the teacher's own format; the next call may overwrite them."""
        with torch.no_grad(), torch.autocast(hidden_nD.device.type, enabled=False):
            layer = self.head_layer
            if layer is None or not LinearHead.is_plain(layer):
                return self.parts.head(hidden_nD)
            return linear_rows(self._buffers, "logits", hidden_nD, layer.weight, layer.bias)
