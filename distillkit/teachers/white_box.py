"""The frozen teacher of white-box distillation: its logits for a batch, counted and timed."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distillkit.training.precision import Compute


class WhiteBoxTeacher:
    """Runs the teacher's forward pass on the batches of the student's training.

    Args:
        model: the teacher, already in the format of `compute.teacher`.
        compute: where it runs.

    Attributes:
        tokens, seconds: what its forward passes have processed and taken so far, padding not counted.
    """

    def __init__(self, model: nn.Module, compute: Compute) -> None:
        self.model = model.to(compute.device).eval().requires_grad_(False)
        self.tokens = 0
        self.seconds = 0.0

    def logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        """[B, T_t, V_t] logits of `teacher_input_ids`, without a graph, in the teacher's own format."""
        began = time.monotonic()
        with torch.no_grad(), torch.autocast(batch["teacher_input_ids"].device.type, enabled=False):
            logits = self.model(
                input_ids=batch["teacher_input_ids"], attention_mask=batch["teacher_attention_mask"], use_cache=False
            ).logits
        if logits.device.type == "cuda":
            torch.cuda.synchronize(logits.device)
        self.tokens += int(batch["teacher_attention_mask"].sum())
        self.seconds += time.monotonic() - began
        return logits
