"""A model run with some of its decoder blocks, and from any of them on.

The model runs its own forward pass, embeddings, masks and positions included; a block that is left out hands on what it is
given, and where a pass begins in the middle the hidden states that are kept from an earlier one are put in. So nothing of
an architecture is written again here. That its blocks are a chain, each of which needs the hidden states of the one before
and nothing else of it, is computed, not believed (`BlockChain.check`).
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.device.precision import autocasting
from distillkit.device.row_tiles import row_tiles
from distillkit.models.pruning import decoder_blocks

# Of the largest difference, relative to the largest number, that rounding makes.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
_COARSE = 3e-2  # bf16 and fp16.
_PROBE_TOKENS = 16


class NotAChainError(Exception):
    """The blocks of a model hand on more than hidden states, or something else."""


class BlockChain:
    """Runs a causal language model block by block, as a context: outside of it the model is as it was.

    Args:
        model: in evaluation mode.
        autocast: format of the matrix products; None: that of the weights.

    Raises:
        UsageError: the architecture has no list of blocks, or several.
    """

    def __init__(self, model: nn.Module, autocast: torch.dtype | None = None) -> None:
        self.model: Any = model
        self.autocast = autocast
        self.blocks = decoder_blocks(model)[2]
        self.device = next(model.parameters()).device
        # Of those blocks that give the hidden states and more: in what, and how much.
        self._parts: dict[int, tuple[type[tuple[Any, ...]] | type[list[Any]], int]] = {}
        self._kept: Collection[int] = range(len(self.blocks))
        self._start, self._state = 0, None
        self._wanted: frozenset[int] = frozenset()
        self._seen: dict[int, Tensor] = {}
        self._checked = False
        self._problem: NotAChainError | None = None

    def __len__(self) -> int:
        return len(self.blocks)

    def __enter__(self) -> BlockChain:
        self._own = [block.forward for block in self.blocks]
        self._had = ["forward" in vars(block) for block in self.blocks]
        for index, block in enumerate(self.blocks):
            block.forward = functools.partial(self._forward, index)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for block, forward, had in zip(self.blocks, self._own, self._had, strict=True):
            if had:
                block.forward = forward
            else:
                del block.forward

    def run(
        self,
        ids_BT: Tensor,
        *,
        kept: Collection[int] | None = None,
        start: int = 0,
        state: Tensor | None = None,
        places: Iterable[int] = (),
        head: bool = False,
    ) -> tuple[dict[int, Tensor], Tensor | None]:
        """A forward pass, without a graph.

        Args:
            ids_BT: [B, T] token ids without padding.
            kept: the blocks that compute; default: all.
            start: the block in front of which `state` is put in; those before it are left out.
            state: [B, T, d] hidden states; default: what the embeddings give.
            places: where to look: i is in front of block i, the number of blocks behind the last one.
            head: whether logits are wanted.

        Returns:
            The hidden states [B, T, d] at the places, and the logits [B, T, V] or None.

        Raises:
            NotAChainError: a place was not passed, or a block is not given hidden states.
        """
        self._kept = range(len(self.blocks)) if kept is None else kept
        self._start, self._state = start, state
        self._wanted, self._seen = frozenset(places), {}
        whole = head or self.model.base_model is self.model
        with torch.no_grad(), autocasting(self.device, self.autocast):
            output = (self.model if whole else self.model.base_model)(input_ids=ids_BT.to(self.device), use_cache=False)
        seen, self._seen, self._state = self._seen, {}, None
        if seen.keys() != self._wanted:
            raise NotAChainError(f"{type(self.model).__name__} does not run its blocks one after the other")
        return seen, output.logits if head else None

    def _forward(self, index: int, *values: Any, **named: Any) -> Any:
        hidden = values[0] if values else named.pop("hidden_states", None)
        if not isinstance(hidden, Tensor):
            raise NotAChainError(f"{type(self.model).__name__} gives its blocks something else than hidden states")
        if index == self._start and self._state is not None:
            hidden = self._state.to(hidden.device, hidden.dtype)
        if index in self._wanted:
            self._seen[index] = hidden
        if index >= self._start and index in self._kept:
            output = self._own[index](hidden, *values[1:], **named)
            if isinstance(output, tuple | list):
                self._parts[index] = (type(output), len(output))
        else:
            kind, count = self._parts.get(index, (None, 0))
            output = hidden if kind is None else kind([hidden, *[None] * (count - 1)])
        last = output[0] if isinstance(output, tuple | list) else output
        if not isinstance(last, Tensor) or last.shape != hidden.shape:
            raise NotAChainError(f"the blocks of {type(self.model).__name__} change the shape of the hidden states")
        if index + 1 == len(self.blocks) and index + 1 in self._wanted:
            self._seen[index + 1] = last
        return output

    def check(self, ids_BT: Tensor) -> None:
        """Prove on a few tokens, once, that the blocks are a chain.

        Raises:
            NotAChainError: a pass that begins in the middle ends elsewhere, or a pass without blocks is not possible.
        """
        if not self._checked:
            try:
                self._try(ids_BT[:1, :_PROBE_TOKENS])
            except NotAChainError as error:
                self._problem = error
            self._checked = True
        if self._problem is not None:
            raise self._problem

    def _try(self, ids: Tensor) -> None:
        count = len(self.blocks)
        try:
            whole, _ = self.run(ids, places=range(count + 1))
            if whole[0].shape[:-1] != ids.shape:
                raise NotAChainError(f"{type(self.model).__name__} has other states than one for each token")
            for start in {1, count // 2, count - 1} & set(range(1, count)):
                again, _ = self.run(ids, start=start, state=whole[start], places=[count])
                if not _alike(again[count], whole[count]):
                    raise NotAChainError(f"the blocks of {type(self.model).__name__} hand on more than hidden states")
            empty, _ = self.run(ids, kept=(), places=[count])
            if not torch.equal(empty[count], whole[0]):
                raise NotAChainError(f"{type(self.model).__name__} does more between its blocks than hand on")
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
            # An architecture may expect of its blocks, or of what they keep in a cache, anything.
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise
            raise NotAChainError(f"{type(self.model).__name__} cannot run without some of its blocks") from error


def _alike(found: Tensor, wanted: Tensor) -> bool:
    tolerance = _ROUNDING.get(wanted.dtype, _COARSE)
    found, wanted = found.double(), wanted.double()
    return bool((found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1e-30))


def boundary_states(chain: BlockChain, batches: Sequence[Tensor], places: Sequence[int]) -> list[Tensor]:
    """The hidden states at some places of the whole model, for all tokens of all texts.

    Args:
        batches: of token ids [B, T].
        places: as `BlockChain.run` takes them.

    Returns:
        For each place [tokens, d], on the processor, in the model's own format.
    """
    parts: list[list[Tensor]] = [[] for _ in places]
    for ids in batches:
        seen, _ = chain.run(ids, places=places)
        for place, part in zip(places, parts, strict=True):
            part.append(seen[place].flatten(0, 1).cpu())
    return [torch.cat(part) for part in parts]


def mean_loss(logits_BTV: Tensor, ids_BT: Tensor) -> float:
    """Nats per token, over all tokens but the first of each text."""
    total, count = 0.0, 0
    for logits, ids in zip(logits_BTV, ids_BT.to(logits_BTV.device), strict=True):
        for tile in row_tiles(len(ids) - 1, logits.shape[1], logits.device):
            total += float(nn.functional.cross_entropy(logits[tile].float(), ids[1:][tile], reduction="sum"))
        count += len(ids) - 1
    return total / max(1, count)
