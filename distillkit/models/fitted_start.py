"""A start for a cut student that is better than the bare layers: what each layer writes, fitted in closed form.

For each layer that is kept, in order, on hidden states that the student itself has by then: the changes D of the weights
of the layer's projections into the hidden states (attention's, and the MLP's) that bring what the layer hands on closest to
the teacher's state in front of the next layer that is kept; behind the last one, to the teacher's state behind its last
layer. With a the inputs of the projections, one beside the other, e what is missing to the teacher's state t, and a token's
weight 1/|t|²:

    D = argmin  sum over tokens |e - D a|² / |t|²  +  λ |D|²,      λ = 0.3 · mean diagonal of  sum a aᵀ / |t|²

The MLP reads what attention writes: attention's part of D is put in, and the MLP's projection fitted once more, alone, to
what is missing then. The weights make the first token of a text, whose state is enormous, count as much as any other. A
bias of the last projection is fitted along and not held back. That dropped layers can be made up for by a linear map in
closed form is ReplaceMe's (arXiv 2505.02819), which fits one map for one row of layers, on the teacher's states; here every
layer that is kept is fitted, each on what the ones before it, already fitted, make of the texts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.interrupts import check_interrupted
from distillkit.models.block_chain import BlockChain
from distillkit.models.residual_projections import add_to, inputs_of, residual_projections, weight_inputs

RIDGE = 0.3  # λ in mean diagonals; 0.03 and 3 made slightly worse students of SmolLM2-135M's layers.
_PROBE_TOKENS = 32
# Columns of a symmetric product at a time, of which what lies left of them is known: fewer make a processor's products slow.
_COLUMNS = 256


@dataclass(frozen=True)
class LayerFit:
    """What became of a layer.

    Attributes:
        layer: its number in the teacher.
        before, after: mean over the tokens of |t - output|² / |t|², with the layer as it was cut, and fitted; both on the
            states that the fitted layers before it give. `after` is None where it stayed as it was.
        why: why it stayed as it was; None: it is fitted.
    """

    layer: int
    before: float
    after: float | None = None
    why: str | None = None

    def record(self) -> dict[str, Any]:
        """For data/cut.json."""
        found: dict[str, Any] = {"layer": self.layer, "before": round(self.before, 6)}
        return found | ({"why": self.why} if self.after is None else {"after": round(self.after, 6)})


def target_places(kept: Sequence[int], total: int) -> list[int]:
    """In front of which of the teacher's blocks each layer that is kept should arrive."""
    return [*kept[1:], total]


def fit_to_teacher(
    student: nn.Module,
    kept: Sequence[int],
    targets: Sequence[Tensor],
    batches: Sequence[Tensor],
    *,
    whole: bool,
    columns: Tensor | None = None,
    autocast: torch.dtype | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[LayerFit]:
    """Fit a cut student to its teacher, in place.

    Args:
        student: made of the layers `kept` of its teacher, in fp32 (or fp64), in evaluation mode.
        kept: the numbers of its layers in the teacher, ascending.
        targets: for each layer the teacher's states [tokens, d] at `target_places`, on the processor; of the texts in
            `batches`, one after the other.
        batches: token ids [B, T] of texts of one length each.
        whole: whether the layers are the teacher's, not narrowed: then those in front of the first gap need nothing.
        columns: the teacher's hidden numbers that the student has, where it has not all of them.
        autocast: format of the matrix products.
        advance: called after each layer.

    Returns:
        What became of each layer.

    Raises:
        NotAChainError: the architecture's blocks hand on more than hidden states; nothing is changed.
        Interrupted: a signal arrived; the student is then between the two.
    """
    with BlockChain(student, autocast) as chain:
        chain.check(batches[0])
        fits: list[LayerFit] = []
        states: list[Tensor | None] = [None] * len(batches)
        for place, layer in enumerate(kept):
            check_interrupted()
            target = targets[place] if columns is None else targets[place].index_select(1, columns.cpu())
            step = _Layer(chain, place, batches, states, target)
            if (
                whole
                and all(number == index for index, number in enumerate(kept[: place + 2]))
                and place + 1 < len(kept)
            ):
                states = step.through()
                fits.append(LayerFit(layer, step.error(states), why="nothing is missing in front of it and behind it"))
            else:
                fit, states = step.fit(layer)
                fits.append(fit)
            advance()
    return fits


class _Layer:
    """One block of the student and what it is given.

    Args:
        place: its number in the student.
        states: [B, T, d] in front of it, for each batch; None: what the embeddings give.
        target: [tokens, d].
    """

    def __init__(
        self,
        chain: BlockChain,
        place: int,
        batches: Sequence[Tensor],
        states: Sequence[Tensor | None],
        target: Tensor,
    ) -> None:
        self.chain, self.place, self.batches, self.states = chain, place, batches, states
        self.block = chain.blocks[place]
        sizes = [ids.numel() for ids in batches]
        self.targets = target.split(sizes)

    def through(self) -> list[Tensor | None]:
        """What comes out of the block, for each batch."""
        return [self._run(ids, state) for ids, state in zip(self.batches, self.states, strict=True)]

    def _run(self, ids: Tensor, state: Tensor | None) -> Tensor:
        seen, _ = self.chain.run(ids, kept=(self.place,), start=self.place, state=state, places=[self.place + 1])
        return seen[self.place + 1]

    def error(self, outputs: Sequence[Tensor | None]) -> float:
        """Mean over the tokens of the squared distance to the target, relative to the target."""
        total, count = 0.0, 0
        for output, target in zip(outputs, self.targets, strict=True):
            if output is not None:
                wanted, weights = self._weighted(target, output)
                total += float((wanted - output.flatten(0, 1).to(wanted.dtype) * weights).double().square().sum())
                count += len(target)
        return total / max(1, count)

    def _weighted(self, target: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """t / |t| [n, d], and 1 / |t| [n, 1]."""
        wanted = target.to(like.device, torch.promote_types(like.dtype, torch.float32))
        norms = wanted.norm(dim=1, keepdim=True)
        weights = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
        return wanted * weights, weights

    def fit(self, layer: int) -> tuple[LayerFit, list[Tensor | None]]:
        """Change the block; returns what became of it, and what comes out of it."""
        projections = self._projections()
        if not projections:
            outputs = self.through()
            return LayerFit(layer, self.error(outputs), why="its output is not linear in its last projection"), outputs
        own = [parameter.detach().clone() for parameter in _parameters(projections)]
        sums, outputs = self._sums(projections)
        before = self.error(outputs)
        change = sums.solve()
        if change is not None and len(projections) > 1:
            # What the last projection reads changes with what the ones before it write: it is fitted anew.
            begin = 0
            for projection in projections[:-1]:
                add_to(projection, change[begin : begin + weight_inputs(projection)])
                begin += weight_inputs(projection)
            change = self._sums(projections[-1:])[0].solve()
        if change is not None:
            add_to(projections[-1], change)
            fitted = self.through()
            after = self.error(fitted)
            if after < before:
                return LayerFit(layer, before, after), fitted
        with torch.no_grad():
            for parameter, value in zip(_parameters(projections), own, strict=True):
                parameter.copy_(value)
        why = "the numbers do not allow it" if change is None else "it is as close as it can be"
        return LayerFit(layer, before, why=why), outputs

    def _sums(self, projections: Sequence[nn.Module]) -> tuple[_Sums, list[Tensor | None]]:
        """Of the inputs of some projections, one beside the other, and of what is missing in the output."""
        sums = _Sums(with_bias=getattr(projections[-1], "bias", None) is not None)
        outputs: list[Tensor | None] = []
        for ids, state, target in zip(self.batches, self.states, self.targets, strict=True):
            check_interrupted()
            with contextlib.ExitStack() as stack:
                inputs = [stack.enter_context(inputs_of(projection)) for projection in projections]
                output = self._run(ids, state)
            wanted, weights = self._weighted(target, output)
            missing = wanted - output.flatten(0, 1).to(wanted.dtype) * weights
            values = torch.cat([seen[-1].flatten(0, -2).to(wanted.dtype) for seen in inputs], dim=1)
            sums.add(values, missing, weights)
            outputs.append(output)
        return sums, outputs

    def _projections(self) -> list[nn.Module]:
        """The linear layers that write into what the block hands on."""
        ids = self.batches[0][:1, :_PROBE_TOKENS]
        state = self.states[0]
        state = None if state is None else state[:1, :_PROBE_TOKENS]
        # Rounding would hide what is not linear.
        autocast, self.chain.autocast = self.chain.autocast, None
        try:
            return residual_projections(self.chain.model, self.block, lambda: self._run(ids, state))
        finally:
            self.chain.autocast = autocast


def _parameters(projections: Sequence[nn.Module]) -> list[nn.Parameter]:
    return [parameter for projection in projections for parameter in projection.parameters(recurse=False)]


def _upper_gram(values_nm: Tensor) -> Tensor:
    """[m, m] values.T @ values on and above the diagonal; below it, zeros for the most part."""
    width = values_nm.shape[1]
    gram = values_nm.new_zeros(width, width)
    for begin in range(0, width, _COLUMNS):
        end = begin + _COLUMNS
        gram[begin:end, begin:] = values_nm[:, begin:end].T @ values_nm[:, begin:]
    return gram


class _Sums:
    """The sums of the least squares, in fp64; of which bias is a last input that is 1. What lies below the diagonal of `gram` is
    not used."""

    def __init__(self, *, with_bias: bool) -> None:
        self.with_bias = with_bias
        self.gram: Tensor | None = None
        self.cross: Tensor | None = None

    def add(self, inputs_nm: Tensor, missing_nd: Tensor, weights_n1: Tensor) -> None:
        """Add tokens.

        Args:
            inputs_nm: of the projection.
            missing_nd: already divided by |t|.
            weights_n1: 1 / |t|.
        """
        values = inputs_nm * weights_n1
        if self.with_bias:
            values = torch.cat([values, weights_n1.to(values.dtype)], dim=1)
        # The solution is computed on the processor: not every device has fp64.
        gram, cross = _upper_gram(values).cpu().double(), (values.T @ missing_nd).cpu().double()
        self.gram = gram if self.gram is None else self.gram.add_(gram)
        self.cross = cross if self.cross is None else self.cross.add_(cross)

    def solve(self) -> Tensor | None:
        """[m, d], or with a bias [m + 1, d]; None where it is no number."""
        if self.gram is None or self.cross is None:
            return None
        inputs = len(self.gram) - self.with_bias
        gram = self.gram.triu() + self.gram.triu(1).T
        diagonal = gram.diagonal()
        ridge = RIDGE * diagonal[:inputs].mean()
        diagonal[:inputs] += ridge  # A view: it changes the matrix.
        triangle, failed = torch.linalg.cholesky_ex(gram)
        if int(failed) != 0:
            return None
        change = torch.cholesky_solve(self.cross, triangle)
        return change if bool(change.isfinite().all()) else None
