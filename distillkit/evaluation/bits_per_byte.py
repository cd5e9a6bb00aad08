"""Bits per byte of texts under a model: Σ NLL / (ln 2 · UTF-8 bytes).

The only scale on which models with different tokenizers can be compared: tokens differ in size, bytes do not. Sums are
kept per document, because documents are what the bootstrap draws.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from distillkit.console import ProgressHandle
from distillkit.device.number_formats import widen
from distillkit.device.row_tiles import row_tiles
from distillkit.errors import DistillkitError, NotFiniteError
from distillkit.evaluation.batched_forward import (
    batch_logits,
    default_batch_tokens,
    eval_mode,
    head_rows_at_once,
    rows_and_head,
    rows_at_once,
)
from distillkit.evaluation.length_batches import batches_by_length
from distillkit.interrupts import check_interrupted
from distillkit.models.backbone_and_head import SplitModel
from distillkit.processes.group import ALONE, Group


@dataclass(frozen=True)
class ScoredText:
    """One context of a model, and the ranges of its tokens that are scored.

    Attributes:
        ids: what the model reads, start and end tokens included.
        spans: the tokens ids[first:last] of each (first, last) are scored, each from all before it; ascending. `first` is at
            least 1: nothing predicts the first token. Nothing is scored where `last` is not greater.
        bytes: UTF-8 bytes that the scored tokens spell.
        document: the document that the text is a piece of.

    Raises:
        ValueError: a range lies outside the context, or bytes are counted without a token that spells them.
    """

    ids: Sequence[int]
    spans: Sequence[tuple[int, int]]
    bytes: int
    document: int

    def __post_init__(self) -> None:
        for first, last in self.spans:
            if first < 1 or last > len(self.ids):
                raise ValueError(f"tokens {first} to {last} of {len(self.ids)} cannot be scored")
        if self.bytes < 0 or (self.bytes and not self.tokens):
            raise ValueError(f"{self.bytes} bytes, but no token that spells them")

    @property
    def tokens(self) -> int:
        """How many are scored."""
        return sum(max(0, last - first) for first, last in self.spans)

    @property
    def read(self) -> Sequence[int]:
        """What the model has to read: tokens after the last row in use change nothing before it."""
        return self.ids[: max((last for first, last in self.spans if last > first), default=1) - 1]


@dataclass(frozen=True, eq=False)
class Scores:
    """Sums per document; D documents.

    Attributes:
        documents: [D] int64, ascending.
        nll: [D] float64, negative log-likelihood of the scored tokens in nats.
        bytes: [D] int64, UTF-8 bytes of the scored tokens.
        tokens: [D] int64, scored tokens.
        by_token: of each text, in the order given, [tokens] float64: the nats of its scored tokens, one after another; None: not
            known, the sums alone are.
    """

    documents: np.ndarray
    nll: np.ndarray
    bytes: np.ndarray
    tokens: np.ndarray
    by_token: Sequence[np.ndarray] | None = None

    @property
    def bits_per_byte(self) -> float:
        """Σ NLL / (ln 2 · Σ bytes).

        Raises:
            DistillkitError: not one byte was scored.
        """
        return float(self.nll.sum()) / (math.log(2) * self._total(self.bytes))

    @property
    def perplexity(self) -> float:
        """exp(Σ NLL / Σ tokens) per token of this model; the largest float where that overflows (JSON has no infinity).

        Raises:
            DistillkitError: not one token was scored.
        """
        mean = float(self.nll.sum()) / self._total(self.tokens)
        return math.exp(mean) if mean < math.log(sys.float_info.max) else sys.float_info.max

    @staticmethod
    def _total(counts: np.ndarray) -> int:
        total = int(counts.sum())
        if total == 0:
            raise DistillkitError(
                "the held-out texts have nothing that can be scored",
                hint="give more or longer texts, or raise --held-out-size",
            )
        return total


def score(
    model: nn.Module,
    texts: Iterable[ScoredText],
    *,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
    batch_tokens: int | None = None,
    progress: ProgressHandle | None = None,
    interruptible: bool = True,
    group: Group = ALONE,
    divided: bool = False,
    parts: SplitModel | None = None,
) -> Scores:
    """Score texts. In fp32 the result does not depend on the batches (to a millionth); bf16 rounds by shape.

    The softmax is over all columns of the head, also those that no token has (padded vocabularies): probability put
    there is lost, and the score shows it.

    Args:
        model: a causal language model on `device`; its training mode is restored.
        autocast_dtype: the format of matrix products; None for that of the weights.
        batch_tokens: tokens per batch, padding included; default: as many as have half a gigabyte of logits. Beyond
            the model's own output only a small chunk of rows is ever held in fp32.
        progress: advanced by the number of texts scored.
        interruptible: whether a signal may end it between two batches.
        group: processes that have the same model and texts; each scores some of the batches, and all get the scores.
        divided: whether the model is divided over the group, so that a forward pass is one of all of them.
        parts: the same model taken apart; then its head meets a few scored rows at a time, and logits of a whole batch, half a
            gigabyte, are never held. Not of a divided one.

    Raises:
        NotFiniteError: a text has no finite likelihood.
        Interrupted: a signal arrived.
    """
    texts = list(texts)
    read = [text.read for text in texts]
    nll = np.zeros(len(texts))
    by_token = no_tokens(len(texts))
    scored = [index for index, ids in enumerate(read) if len(ids)]
    batches = batches_by_length([len(read[index]) for index in scored], batch_tokens or default_batch_tokens(model))
    own = group.part(batches)
    with eval_mode(model, divided=divided):
        for batch in own:
            if interruptible:
                check_interrupted()
            members = [scored[index] for index in batch]
            read_now, scored_now = [read[index] for index in members], [texts[index] for index in members]
            if parts is None or not parts.apart:
                values = token_nll(batch_logits(model, read_now, device, autocast_dtype), scored_now)
            else:
                with rows_and_head(parts, read_now, device, autocast_dtype) as (hidden, head):
                    values = token_nll(hidden, scored_now, (head, parts.columns))
            set_nll(nll, by_token, members, values)
            check_finite(nll, texts, members)
            if progress is not None:
                progress.advance(len(members))
        if divided and group.rank >= len(batches) % group.size > 0:
            # The others have one more.
            batch_logits(model, [read[scored[index]] for index in batches[0]], device, autocast_dtype)
    if group.alone:
        return by_document(texts, nll, by_token)
    return by_document(texts, np.array(group.sums(nll.tolist())))


def no_tokens(texts: int) -> list[np.ndarray]:
    """`Scores.by_token` of texts of which nothing is scored yet."""
    return [np.zeros(0)] * texts


def set_nll(nll: np.ndarray, by_token: list[np.ndarray], members: Sequence[int], values: Sequence[np.ndarray]) -> None:
    """Note what the texts of a batch came to.

    Args:
        nll: [texts] float64, nats; changed.
        by_token: changed too.
        members: numbers of the texts.
        values: as `token_nll` returns them.
    """
    owners = np.repeat(np.arange(len(members)), [len(of_text) for of_text in values])
    nll[list(members)] = np.bincount(owners, weights=np.concatenate(values), minlength=len(members))
    for index, of_text in zip(members, values, strict=True):
        by_token[index] = of_text


def check_finite(nll: np.ndarray, texts: Sequence[ScoredText], members: Iterable[int]) -> None:
    """Raise NotFiniteError where one of these texts has no finite likelihood.

    Args:
        nll: [texts] nats.
        members: numbers of texts.
    """
    for index in members:
        if not math.isfinite(nll[index]):
            raise NotFiniteError(
                f"the negative log-likelihood of a text of document {texts[index].document} became {nll[index]}",
                hint="use --precision fp32; if this happened in training, lower --learning-rate too",
            )


def token_nll(
    rows_BTW: Tensor, texts: Sequence[ScoredText], head: tuple[Callable[[Tensor], Tensor], int] | None = None
) -> list[np.ndarray]:
    """Of each text of a batch, [tokens] float64, nats: -log p of its scored tokens.

    Args:
        rows_BTW: logits of texts padded on the right, at least of what each is `read` of; with a head hidden states.
        head: [n, W] hidden states -> [n, V] logits; and V.
    """
    width = rows_BTW.shape[1]
    none = torch.zeros(0, dtype=torch.long)
    rows, targets = [none], [none]
    for index, text in enumerate(texts):
        for first, last in text.spans:
            # Row r predicts token r + 1.
            rows.append(torch.arange(first - 1, max(first, last) - 1) + index * width)
            targets.append(torch.as_tensor(text.ids[first:last], dtype=torch.long))
    rows_NW, device = rows_BTW.flatten(0, 1), rows_BTW.device
    make_logits, columns = head or (_unchanged, rows_BTW.shape[2])
    wide = rows_at_once(columns)
    chunk = wide if head is None else head_rows_at_once(columns)
    values: list[np.ndarray] = []
    for rows_m, targets_m in zip(torch.cat(rows).split(chunk), torch.cat(targets).split(chunk), strict=True):
        logits_mV = make_logits(rows_NW.index_select(0, rows_m.to(device)))
        for logits_nV, targets_n in zip(logits_mV.split(wide), targets_m.to(device).split(wide), strict=True):
            for tile in row_tiles(len(targets_n), columns, device):
                wide_tV = widen(logits_nV[tile])
                at_target = wide_tV.gather(1, targets_n[tile, None])[:, 0]
                values.append((wide_tV.logsumexp(-1) - at_target).cpu().double().numpy())
    return np.split(np.concatenate(values), np.cumsum([text.tokens for text in texts])[:-1])


def _unchanged(logits: Tensor) -> Tensor:
    return logits


def by_document(texts: Sequence[ScoredText], nll: np.ndarray, by_token: Sequence[np.ndarray] | None = None) -> Scores:
    """The sums of each document.

    Args:
        nll: [texts] float64, nats.
        by_token: of each text the nats of its scored tokens; None where only the sums are known.
    """
    documents, where = np.unique(np.array([text.document for text in texts], dtype=np.int64), return_inverse=True)
    bytes_ = np.zeros(len(documents), dtype=np.int64)
    tokens = np.zeros(len(documents), dtype=np.int64)
    np.add.at(bytes_, where, np.array([text.bytes for text in texts], dtype=np.int64))
    np.add.at(tokens, where, np.array([text.tokens for text in texts], dtype=np.int64))
    return Scores(documents, np.bincount(where, weights=nll, minlength=len(documents)), bytes_, tokens, by_token)
