"""Forward passes for evaluation: padding changes no result, and logits take a fixed amount of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.data.batching import attention_mask, pad_right

LOGITS_AT_ONCE = 1 << 27  # 512 MB of fp32 logits: no more than a training step of the default batch takes.
_MOST_TOKENS = 8192
WIDE_AT_ONCE = 1 << 24  # Numbers in fp32 while rows are turned into log-probabilities: 64 MB.


def head_width(model: nn.Module) -> int:
    """The number of logits per row, padding of the vocabulary included."""
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None and hasattr(head, "weight"):
        return int(head.weight.shape[0])
    config: Any = model.config
    return int(config.get_text_config().vocab_size)


def default_batch_tokens(*models: nn.Module) -> int:
    """Tokens per batch, padding included, whose logits fit into half a gigabyte for all `models` together."""
    return max(1, min(_MOST_TOKENS, LOGITS_AT_ONCE // sum(head_width(model) for model in models)))


def rows_at_once(columns: int) -> int:
    """How many rows of `columns` numbers may be held in fp32 at a time."""
    return max(1, WIDE_AT_ONCE // columns)


@contextlib.contextmanager
def eval_mode(*models: nn.Module, divided: bool = False) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in its mode of before.

    Args:
        divided: whether a model is divided over processes: what is gathered of it here is used again in training, which
            tensors of inference mode cannot be.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.no_grad() if divided else torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def batch_logits(
    model: nn.Module, texts: Sequence[Sequence[int]], device: torch.device, autocast_dtype: torch.dtype | None
) -> Tensor:
    """[B, T, V] logits of texts padded on the right, in the model's own output format; T is the longest length.

    The mask follows the lengths: the id that fills the padding may also be a real token.

    Args:
        texts: token ids, B of them.
        autocast_dtype: the format of matrix products; None for that of the weights.
    """
    # Rounding T up could go beyond a context whose positions are a table (GPT-2).
    input_ids = pad_right(texts, 0)
    mask = attention_mask(texts, input_ids.shape[1])
    with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
        return model(input_ids=input_ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
