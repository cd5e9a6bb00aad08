"""Several teachers as one: the weighted mean of their probabilities, in the student's tokens and at the temperature of the run.

p(v) = Σ w_i·p_i(v) / Σ w_i, over the teachers i that say something at a row (linear opinion pool, Stone 1961). Of probabilities,
not of logits: the mean of logits is the geometric mean of the distributions, and gives next to nothing to what one teacher
takes for next to impossible.

Every teacher comes as it would alone, whole or sparse:

- whole: log-weights at temperature 1, already in the student's tokens; tempered here, each by itself, before they are mixed;
- sampled: an unbiased estimate of p_i, so their weighted sum is one of p;
- the likeliest ids and a tail: the tail is spread as the student itself spreads it over those ids. With p_i(v) = tail·q(v)/q(tail)
  there, held fast, value and gradient of KL(p_i ‖ q) are those of the loss with a tail bucket (`losses.sparse`), and the
  gradient of the forward KL is linear in p: with one such teacher this is that loss, with several it is their weighted mean.

Shapes: R rows of the mixture, n of them at a time, V columns of the student's head, K ids of a sparse row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distillkit.device.number_formats import widen
from distillkit.losses.chunked import SoftTargets
from distillkit.losses.sparse import TINY, SparseTargets
from distillkit.losses.tempered import temper

Part = tuple[SoftTargets | SparseTargets, float]
"""The targets of one teacher in a batch, and its weight."""


class MixedTargets:
    """The mixture as `losses.chunked.SoftTargets`.

    Args:
        parts: of every teacher; weights are above 0, and only their ratio counts.
        temperature: τ of the loss that reads the mixture; sparse targets are at this temperature already.

    Attributes:
        rows: [R] at which at least one of them has a target.

    Raises:
        ValueError: there is no teacher.
    """

    def __init__(self, parts: Sequence[Part], temperature: float) -> None:
        if not parts:
            raise ValueError("a mixture of no teachers")
        self.temperature = temperature
        self._parts = parts
        # Once for a batch: where rows of one are rows of the other is looked up on the processor, chunk by chunk.
        self._rows = [targets.rows.cpu().numpy() for targets, _ in parts]
        self._union = np.unique(np.concatenate(self._rows))
        self.rows = torch.from_numpy(self._union).to(parts[0][0].rows.device)
        self._student_nV: Tensor | None = None

    def beside(self, student_logits_nV: Tensor) -> None:
        """Take note of what the student says at the rows that `log_target` is asked for next."""
        self._student_nV = student_logits_nV

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        """[end - begin, columns] τ·log p, which are log-weights at temperature 1; -inf throughout where no teacher has a
        target."""
        wanted = self._union[begin:end]
        mixed: Tensor | None = None
        for (targets, weight), rows in zip(self._parts, self._rows, strict=True):
            low, high = (int(place) for place in np.searchsorted(rows, [wanted[0], wanted[-1] + 1]))
            if low == high:
                continue
            places = torch.from_numpy(np.searchsorted(wanted, rows[low:high])).to(self.rows.device)
            log_probs = self._log_probs(targets, low, high, columns, places) + math.log(weight)
            if mixed is None and len(places) == len(wanted):
                mixed = log_probs
                continue
            if mixed is None:
                mixed = log_probs.new_full((len(wanted), columns), -torch.inf)
            mixed[places] = torch.logaddexp(mixed[places], log_probs)
        assert mixed is not None  # Every row of the union is a row of a part.
        return self.temperature * mixed

    def _log_probs(
        self, targets: SoftTargets | SparseTargets, low: int, high: int, columns: int, places: Tensor
    ) -> Tensor:
        """[high - low, columns] log p_i of some rows of one teacher, at temperature τ; -inf throughout: no target.

        Args:
            places: of these rows among those of the chunk.
        """
        if isinstance(targets, SparseTargets):
            return self._of_sparse(targets, low, high, columns, places)
        log_weights = targets.log_target(low, high, columns)
        usable = log_weights.amax(-1, keepdim=True) != -torch.inf  # Not ">": a NaN has to reach the loss.
        return torch.where(usable, temper(log_weights, self.temperature), -torch.inf)

    def _of_sparse(self, sparse: SparseTargets, low: int, high: int, columns: int, places: Tensor) -> Tensor:
        ids, kept = sparse.ids_RK[low:high], widen(sparse.probabilities_RK[low:high])
        # Entries that fill a row up are id 0 with probability 0, beside which the real id 0 has to stay.
        log_probs = kept.new_full((high - low, columns), -torch.inf)
        log_probs = log_probs.scatter_reduce(1, ids, kept.log(), "amax")
        tails = widen(sparse.tails_R[low:high])
        if self._student_nV is None:
            return log_probs
        log_q = temper(self._student_nV.detach().index_select(0, places), self.temperature).to(kept.dtype)
        known = torch.where(kept > 0, log_q.gather(1, ids).exp(), 0.0).sum(-1)
        spread = (tails.log() - (1 - known).clamp(min=TINY).log())[:, None] + log_q
        return torch.where(log_probs == -torch.inf, spread, log_probs)
