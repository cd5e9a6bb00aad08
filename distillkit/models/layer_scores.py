"""What the layers of a model are worth, measured on a few texts, and which of them each way of choosing keeps.

All of it is before any training. The numbers behind the ways are in benchmarks/layers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distillkit.interrupts import check_interrupted
from distillkit.models.block_chain import BlockChain, mean_loss

# Of so many layers of least influence, greedy takes the one away that costs the least.
CANDIDATES = 4


def influence(states: Sequence[Tensor]) -> list[float]:
    """1 - mean cosine of what goes into each block and what comes out of it (ShortGPT, arXiv 2403.03853).

    The first token of each text counts too: without it, the block that makes its large hidden state looks idle.

    Args:
        states: [tokens, d] in front of each block, and behind the last one.

    Returns:
        A number from 0 to 2 for each block.
    """
    scores = []
    for before, after in itertools.pairwise(states):
        scores.append(1 - float(_cosine(before, after).mean()))
    return scores


def turning(states: Sequence[Tensor], gone: int) -> list[float]:
    """Mean angle between what goes into `gone` neighbouring blocks and what comes out of them (Gromov et al., arXiv
    2403.17887), in half turns.

    Args:
        states: as `influence` takes them.

    Returns:
        A number from 0 to 1 for each block that such a row can begin with.
    """
    found = []
    for first in range(len(states) - gone):
        angle = _cosine(states[first], states[first + gone]).acos()
        found.append(float(angle.mean()) / math.pi)
    return found


def _cosine(before: Tensor, after: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1).clamp(-1, 1)


def highest(scores: Sequence[float], count: int) -> list[int]:
    """The `count` layers of the highest scores, ascending; of equal ones the first."""
    return sorted(sorted(range(len(scores)), key=lambda layer: -scores[layer])[:count])


def without_one_row(angles: Sequence[float], count: int, total: int) -> list[int]:
    """All layers but the row of neighbours that turns the hidden states the least."""
    first = min(range(len(angles)), key=lambda layer: angles[layer])
    return [layer for layer in range(total) if not first <= layer < first + total - count]


def losses_without_each(chain: BlockChain, ids_BT: Tensor, advance: Callable[[], None]) -> list[float]:
    """The loss of the model without each of its layers, one at a time.

    Args:
        ids_BT: texts of one length.
        advance: called after each layer.

    Returns:
        For each layer, nats per token.

    Raises:
        Interrupted: a signal arrived.
    """
    total = len(chain)
    states, _ = chain.run(ids_BT, places=range(total))
    found = []
    for layer in range(total):
        check_interrupted()
        kept = [other for other in range(total) if other != layer]
        _, logits = chain.run(ids_BT, kept=kept, start=layer, state=states[layer], head=True)
        found.append(_loss(logits, ids_BT))
        advance()
    return found


@dataclass(frozen=True)
class Removal:
    """A layer that was taken away, and the loss without it and those before it, in nats per token."""

    layer: int
    loss: float


def removals(
    chain: BlockChain, ids_BT: Tensor, scores: Sequence[float], count: int, advance: Callable[[], None]
) -> list[Removal]:
    """Layers taken away one by one until `count` are left: of the `CANDIDATES` of least influence that are still there, the
    one without which the loss is lowest.

    What comes in front of a candidate is the same without it, so each try begins there.

    Args:
        ids_BT: texts of one length.
        scores: influence of each layer.
        advance: called after each layer that is taken away.

    Returns:
        The layers in the order in which they go.

    Raises:
        Interrupted: a signal arrived.
    """
    kept = list(range(len(chain)))
    states, _ = chain.run(ids_BT, places=kept)
    gone: list[Removal] = []
    while len(kept) > count:
        tries: list[tuple[float, int, dict[int, Tensor]]] = []
        for layer in sorted(sorted(kept, key=lambda layer: scores[layer])[:CANDIDATES]):
            check_interrupted()
            left = [other for other in kept if other != layer]
            later = [other for other in left if other > layer]
            seen, logits = chain.run(ids_BT, kept=left, start=layer, state=states[layer], places=later, head=True)
            tries.append((_loss(logits, ids_BT), layer, seen))
        loss, layer, seen = min(tries, key=lambda tried: (math.inf if math.isnan(tried[0]) else tried[0], tried[1]))
        kept.remove(layer)
        states |= seen
        gone.append(Removal(layer, loss))
        advance()
    return gone


def _loss(logits: Tensor | None, ids_BT: Tensor) -> float:
    if logits is None:
        raise AssertionError("a pass with a head gives logits")
    return mean_loss(logits, ids_BT)
