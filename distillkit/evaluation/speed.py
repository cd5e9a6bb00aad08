"""How large a model is and how fast it writes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from distillkit.training.precision import autocasting


@dataclass(frozen=True)
class Size:
    """Parameters (tied ones once), and bytes of their values in the format they are held in."""

    parameters: int
    bytes: int


def model_size(model: nn.Module) -> Size:
    """Count a model's parameters."""
    parameters = list(model.parameters())
    return Size(
        sum(item.numel() for item in parameters), sum(item.numel() * item.element_size() for item in parameters)
    )


@torch.inference_mode()
def generation_speed(
    model: nn.Module,
    prompt: Sequence[int],
    *,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
    new_tokens: int = 16,
    repeats: int = 3,
) -> float:
    """New tokens per second of greedy writing with a key-value cache: the median of a few repeats after a first one."""
    ids = torch.tensor([list(prompt)], device=device)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        with autocasting(device, autocast_dtype):
            output = model.generate(  # pyright: ignore[reportCallIssue]
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=True,
                max_new_tokens=new_tokens, min_new_tokens=new_tokens, pad_token_id=0,
            )  # fmt: skip
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append((time.perf_counter() - began) / max(1, output.shape[1] - ids.shape[1]))
    return 1 / statistics.median(seconds[1:])
