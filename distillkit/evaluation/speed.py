"""How fast a model generates and how large it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from distillkit.evaluation.batched_forward import token_by_token
from distillkit.interrupts import check_interrupted
from distillkit.models.decoding import Decoding, choose_tokens

# Seconds after which no further run is measured: of a large model on a small machine one is enough.
_ENOUGH_SECONDS = 15.0


@dataclass(frozen=True)
class ModelSize:
    """Attributes:
    parameters: numbers in all weights; tied weights count once.
    bytes: what they take in their present format.
    """

    parameters: int
    bytes: int


def model_size(model: nn.Module) -> ModelSize:
    """The size of a model's weights."""
    weights = list(model.parameters())
    return ModelSize(
        sum(_numbers(weight) for weight in weights), sum(weight.numel() * weight.element_size() for weight in weights)
    )


def _numbers(weight: nn.Parameter) -> int:
    """Those that a weight stands for: bitsandbytes puts two of 4 bits into a byte."""
    packed = getattr(weight, "quant_state", None)
    return weight.numel() if packed is None else int(packed.shape.numel())


def generation_speed(
    model: nn.Module,
    prompt: Sequence[int],
    *,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
    context: int | None = None,
    new_tokens: int = 32,
    repeats: int = 3,
) -> float:
    """New tokens per second of one text: greedy, with a key-value cache, reading the prompt included.

    The median of `repeats` runs after a short one that is not counted; slow models get fewer.

    Args:
        model: on `device`; its training mode is restored.
        prompt: token ids, at least one.
        context: what the model can read at once, to which prompt and new tokens are cut; None for no limit.

    Raises:
        Interrupted: a signal arrived.
    """
    if context is not None:
        prompt = prompt[: max(1, context // 2)]
        new_tokens = max(1, min(new_tokens, context - len(prompt)))
    with token_by_token(model, device, autocast_dtype):
        _seconds(model, prompt, min(2, new_tokens), device)
        speeds: list[float] = []
        began = time.monotonic()
        while len(speeds) < repeats and (not speeds or time.monotonic() - began < _ENOUGH_SECONDS):
            speeds.append(new_tokens / _seconds(model, prompt, new_tokens, device))
    return statistics.median(speeds)


def _seconds(model: nn.Module, prompt: Sequence[int], new_tokens: int, device: torch.device) -> float:
    _wait_for(device)
    began = time.perf_counter()
    text = Decoding(model, [prompt], device)
    unfinished = torch.ones(1, dtype=torch.bool, device=device)
    for _ in range(new_tokens):
        check_interrupted()
        text.append(choose_tokens(text.logits(), 0, 1, None), unfinished)
    _wait_for(device)
    return max(time.perf_counter() - began, 1e-9)


def _wait_for(device: torch.device) -> None:
    """Until everything queued on an accelerator is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
