"""Which layers of its teacher a student `teacher:N` keeps (`--layer-choice`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from distillkit.console import Console
from distillkit.models.block_chain import BlockChain, NotAChainError
from distillkit.models.layer_scores import (
    Removal,
    highest,
    influence,
    losses_without_each,
    removals,
    turning,
    without_one_row,
)
from distillkit.models.pruning import evenly_spaced

# Ways that try the teacher without layers, over and over.
_WITH_TRIES = ("greedy", "perplexity")


@dataclass(frozen=True)
class LayerChoice:
    """Layers that were chosen, and from what.

    Attributes:
        way: that was used: one of `--layer-choice`, or "named", or "all".
        kept: the numbers of the layers, ascending.
        total: layers of the teacher.
        tokens: on which it was measured; 0: nothing was.
        influence: of each layer (`layer_scores.influence`); None: not measured.
        losses_without: the loss without each layer alone, in nats per token ("perplexity").
        angles: for each row of neighbours that could go, by its first layer, in half turns ("contiguous").
        removed: in the order in which layers went ("greedy").
        remarks: what else is to be said, such as why another way was used than was asked for.
    """

    way: str
    kept: list[int]
    total: int
    tokens: int = 0
    influence: list[float] | None = None
    losses_without: list[float] | None = None
    angles: list[float] | None = None
    removed: list[Removal] | None = None
    remarks: list[str] = field(default_factory=list)

    def but(self, kept: list[int], remark: str) -> LayerChoice:
        """Other layers, and why."""
        return replace(self, kept=kept, remarks=[*self.remarks, remark])

    def record(self) -> dict[str, Any]:
        """For data/cut.json; numbers rounded to what they can tell."""
        scores = {"influence": self.influence, "losses_without": self.losses_without, "angles": self.angles}
        found: dict[str, Any] = {
            name: [_rounded(value) for value in values] for name, values in scores.items() if values is not None
        }
        if self.removed is not None:
            found["removed"] = [{"layer": one.layer, "loss": _rounded(one.loss)} for one in self.removed]
        return {"way": self.way, "layers": self.total, "kept": self.kept, "tokens": self.tokens, **found}


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


class TeacherStates(Protocol):
    """What passes over the teacher's layers have to give, however it is had."""

    def __call__(self, batches: Sequence[Tensor], places: Sequence[int]) -> list[Tensor]:
        """As `block_chain.boundary_states`."""
        ...


def choose_layers(
    way: str,
    count: int,
    total: int,
    states_of: TeacherStates,
    chain: BlockChain | None,
    batches: Sequence[Tensor],
    trial: Tensor,
    console: Console,
) -> LayerChoice:
    """The layers that a way keeps; evenly spaced ones where an architecture's layers cannot be measured.

    Args:
        way: greedy, influence, perplexity, contiguous or even.
        count: how many to keep, fewer than `total`.
        states_of: gives the teacher's hidden states.
        chain: the teacher, as a context that is open; None: it only runs block by block.
        batches: texts for one pass, [B, T] each.
        trial: texts [B, T] for the tries of `greedy` and `perplexity`.

    Raises:
        Interrupted: a signal arrived.
    """
    even = LayerChoice("even", evenly_spaced(count, total), total)
    if way == "even":
        return even
    try:
        if chain is not None:
            chain.check(batches[0])
        return _measured(way, count, total, states_of, chain, batches, trial, console)
    except NotAChainError as error:
        return replace(even, remarks=[f"the layers cannot be measured ({error}): they are evenly spaced"])


def _measured(
    way: str,
    count: int,
    total: int,
    states_of: TeacherStates,
    chain: BlockChain | None,
    batches: Sequence[Tensor],
    trial: Tensor,
    console: Console,
) -> LayerChoice:
    states = states_of(batches, range(total + 1))
    tokens = sum(ids.numel() for ids in batches)
    scores = influence(states)
    if not all(map(math.isfinite, scores)):
        raise NotAChainError("the teacher's hidden states are no numbers")
    choice = LayerChoice("influence", highest(scores, count), total, tokens, influence=scores)
    if way == "contiguous":
        angles = turning(states, total - count)
        return replace(choice, way=way, kept=without_one_row(angles, count, total), angles=angles)
    if way not in _WITH_TRIES:
        return choice
    if chain is None:
        said = (
            f"--layer-choice {way} would read the teacher from the disk over and over: layers are chosen by influence"
        )
        return replace(choice, remarks=[said])
    tokens += trial.numel()
    if way == "perplexity":
        with console.progress("choosing layers", total, unit="layers") as progress:
            losses = losses_without_each(chain, trial, progress.advance)
        return replace(choice, way=way, kept=highest(losses, count), tokens=tokens, losses_without=losses)
    with console.progress("choosing layers", total - count, unit="layers") as progress:
        removed = removals(chain, trial, scores, count, progress.advance)
    gone = {one.layer for one in removed}
    kept = [layer for layer in range(total) if layer not in gone]
    return replace(choice, way=way, kept=kept, tokens=tokens, removed=removed)
