"""Forward passes for evaluation: padding changes no result, and logits take a fixed amount of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.data.batching import attention_mask, pad_right
from distillkit.models.backbone_and_head import SplitModel

LOGITS_AT_ONCE = 1 << 27  # 512 MB of fp32 logits: no more than a training step of the default batch takes.
_MOST_TOKENS = 8192
WIDE_AT_ONCE = 1 << 24  # Numbers in fp32 while rows are turned into log-probabilities: 64 MB.
HEAD_AT_ONCE = (
    1 << 25
)  # Logits that a head apart from its model makes at a time: it meets rows that are asked for alone.


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


def head_rows_at_once(columns: int) -> int:
    """How many rows meet a head of `columns` logits at a time."""
    return max(rows_at_once(columns), HEAD_AT_ONCE // columns)


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


@contextlib.contextmanager
def token_by_token(model: nn.Module, device: torch.device, autocast_dtype: torch.dtype | None) -> Iterator[None]:
    """`eval_mode` for writing, with the weights converted once and not for every token.

    Autocast keeps what it has converted, but not in inference mode. What it keeps here goes at the end: within a surrounding
    autocast it would stay, without a gradient, and a training shall not depend on torch to tell it from its own.

    Args:
        autocast_dtype: the format of matrix products; None for that of the weights.
    """
    with eval_mode(model, divided=True), _products(device, autocast_dtype):
        try:
            yield
        finally:
            torch.clear_autocast_cache()


def batch_logits(
    model: nn.Module, texts: Sequence[Sequence[int]], device: torch.device, autocast_dtype: torch.dtype | None
) -> Tensor:
    """[B, T, V] logits of texts padded on the right, in the model's own output format; T is the longest length.

    Args:
        texts: token ids, B of them.
        autocast_dtype: the format of matrix products; None for that of the weights.
    """
    with _products(device, autocast_dtype):
        return model(**_padded(texts, device), use_cache=False).logits


@contextlib.contextmanager
def rows_and_head(
    parts: SplitModel, texts: Sequence[Sequence[int]], device: torch.device, autocast_dtype: torch.dtype | None
) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """As `batch_logits`, with the head left for later: [B, T, D] hidden states, and what makes [n, V] logits of n of their rows.

    Args:
        parts: the model, taken apart.
    """
    with _products(device, autocast_dtype):  # Until the end: the products of the head have this format too.
        yield parts.hidden(_padded(texts, device)), parts.head


def _products(device: torch.device, autocast_dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None)


def _padded(texts: Sequence[Sequence[int]], device: torch.device) -> dict[str, Tensor]:
    """The mask follows the lengths: the id that fills the padding may also be a real token."""
    # Rounding T up could go beyond a context whose positions are a table (GPT-2).
    input_ids = pad_right(texts, 0)
    mask = attention_mask(texts, input_ids.shape[1])
    return {"input_ids": input_ids.to(device), "attention_mask": mask.to(device)}
