"""Attention while a model is trained on a processor: short texts in fp32, where the rest computes in half precision.

Of fewer than 192 tokens torch's flash attention for processors takes 32 rows at a time, and its backward pass takes longer in
half precision than in fp32, as it seems because each of these small products is prepared anew (torch 2.13;
benchmarks/speed/attention.py). Without a gradient it does not, so that scores stay in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distillkit.device.number_formats import product_format

# What transformers takes wherever a model can do it and nothing else was asked for.
_TORCHS = "sdpa"
_HALVES = (torch.bfloat16, torch.float16)
# Tokens from which torch takes more rows at a time.
_LONG = 192

AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]


@contextmanager
def quick_attention() -> Iterator[None]:
    """While it lasts, transformers' models read short texts with attention in fp32 where a gradient is needed on a processor.

    Models with attention functions of their own, and `eager`, are not touched.
    """
    before: AttentionFunction = ALL_ATTENTION_FUNCTIONS[_TORCHS]
    AttentionInterface.register(_TORCHS, _in_fp32(before))
    try:
        yield
    finally:
        AttentionInterface.register(_TORCHS, before)


def _in_fp32(attend: AttentionFunction) -> AttentionFunction:
    def attention(
        module: nn.Module,
        query_BHTD: Tensor,
        key_BhTD: Tensor,
        value_BhTD: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        dtype = product_format(query_BHTD)
        gains = query_BHTD.device.type == "cpu" and dtype in _HALVES and query_BHTD.shape[2] < _LONG
        if not (gains and torch.is_grad_enabled()):
            return attend(module, query_BHTD, key_BhTD, value_BhTD, attention_mask, **options)
        wide = [states.float() for states in (query_BHTD, key_BhTD, value_BhTD)]
        if attention_mask is not None and attention_mask.is_floating_point():
            attention_mask = attention_mask.float()
        # Autocast would make halves of them again.
        with torch.autocast("cpu", enabled=False):
            mixed_BTHD, weights = attend(module, *wide, attention_mask, **options)
        return mixed_BTHD.to(dtype), weights

    return attention
