"""Bits per byte: the only scale that is fair between tokenizers. Σ negative log-likelihood / (ln 2 · UTF-8 bytes)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from distillkit.console import ProgressHandle
from distillkit.data.batching import attention_mask, pad_right
from distillkit.errors import DistillkitError
from distillkit.interrupts import check_interrupted
from distillkit.training.precision import autocasting

# Rows whose [rows, V] log-probabilities are held in fp32 at once: 256 × 50 000 × 4 bytes = 51 MB.
_ROWS_AT_ONCE = 256
_TOKENS_AT_ONCE = 2048


@dataclass(frozen=True)
class ScoredText:
    """One context: the model reads `ids`, and ids[first:last] are scored.

    Attributes:
        ids: start token (if any), text, end token (if any).
        first, last: the scored tokens; first >= 1, since nothing predicts the first token.
        bytes: UTF-8 bytes that the scored tokens spell.
        document: the unit that the bootstrap draws; several texts may be pieces of one document.
    """

    ids: Sequence[int]
    first: int
    last: int
    bytes: int
    document: int


@dataclass(frozen=True)
class Scores:
    """Sums per document, in the order of `documents`.

    Attributes:
        documents: [D] document numbers, ascending.
        nll: [D] float64, Σ negative log-likelihood in nats.
        bytes, tokens: [D] int64, what was scored.
    """

    documents: np.ndarray
    nll: np.ndarray
    bytes: np.ndarray
    tokens: np.ndarray

    @property
    def bits_per_byte(self) -> float:
        """Over all documents: a ratio of sums. NaN where there are no bytes."""
        size = int(self.bytes.sum())
        return float(self.nll.sum()) / (math.log(2) * size) if size else math.nan

    @property
    def perplexity(self) -> float:
        """Per token of the model's own tokenizer: not comparable between tokenizers."""
        tokens = int(self.tokens.sum())
        return math.exp(min(float(self.nll.sum()) / tokens, 700.0)) if tokens else math.nan


def score(
    model: nn.Module,
    texts: Sequence[ScoredText],
    *,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
    tokens_at_once: int = _TOKENS_AT_ONCE,
    progress: ProgressHandle | None = None,
    interruptible: bool = True,
) -> Scores:
    """Score texts with a model, each in a context of its own.

    The softmax is over all columns of the model's head, padding of its vocabulary included: that is the distribution
    that the model really has. Batches are of like lengths, padded to the right and masked by length; the result does
    not depend on them.

    Args:
        tokens_at_once: padded tokens of a batch, at the most (at least one text).
        progress: advanced by one per text.
        interruptible: False where leaving in the middle would lose a step that is done.

    Raises:
        DistillkitError: a likelihood is not finite; names the document.
        Interrupted: a signal arrived.
    """
    numbers = np.array(sorted({text.document for text in texts}), dtype=np.int64)
    index_of = {int(number): index for index, number in enumerate(numbers)}
    nll = np.zeros(len(numbers))
    sizes, tokens = np.zeros(len(numbers), dtype=np.int64), np.zeros(len(numbers), dtype=np.int64)
    was_training = model.training
    model.eval()
    try:
        for batch in _batches(texts, tokens_at_once):
            if interruptible:
                check_interrupted()
            values = _nll(model, [texts[position] for position in batch], device, autocast_dtype)
            for position, value in zip(batch, values, strict=True):
                text = texts[position]
                if not math.isfinite(value):
                    raise DistillkitError(
                        f"the likelihood of held-out document {text.document} is {value}",
                        hint="the model's weights may be damaged, or its numbers overflow: --precision fp32",
                    )
                row = index_of[text.document]
                nll[row] += value
                sizes[row] += text.bytes
                tokens[row] += max(0, text.last - text.first)
            if progress is not None:
                progress.advance(len(batch))
    finally:
        model.train(was_training)
    return Scores(numbers, nll, sizes, tokens)


def _batches(texts: Sequence[ScoredText], tokens_at_once: int) -> list[list[int]]:
    """Positions of texts, grouped by length, longest first: what does not fit fails at once, not at the end."""
    order = sorted(range(len(texts)), key=lambda position: (-len(texts[position].ids), position))
    batches: list[list[int]] = []
    for position in order:
        if batches and len(texts[batches[-1][0]].ids) * (len(batches[-1]) + 1) <= tokens_at_once:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


@torch.inference_mode()
def _nll(
    model: nn.Module, texts: Sequence[ScoredText], device: torch.device, autocast_dtype: torch.dtype | None
) -> list[float]:
    """Σ NLL in nats of each text."""
    rows = [text.ids for text in texts]
    input_ids = pad_right(rows, 0, multiple=1)
    mask = attention_mask(rows, input_ids.shape[1])
    with autocasting(device, autocast_dtype):
        logits = model(input_ids=input_ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
    values = []
    for index, text in enumerate(texts):
        # Row r predicts token r + 1.
        targets = input_ids[index, text.first : text.last].to(device)
        predictions = logits[index, text.first - 1 : text.last - 1]
        values.append(
            sum(
                _cross_entropy(part, goal)
                for part, goal in zip(predictions.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE), strict=True)
            )
        )
    return [float(value) for value in values]


def _cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> float:
    return float(nn.functional.cross_entropy(logits_NV.float(), targets_N, reduction="sum")) if len(targets_N) else 0.0
