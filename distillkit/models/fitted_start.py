"""A start for a cut student that is better than the bare layers: the last projection of each layer, fitted in closed form.

For each layer that is kept, in order, on hidden states that the student itself has by then: the change D of the weight of
the layer's last projection (the MLP's way back to the hidden size) that brings what the layer hands on closest to the
teacher's state in front of the next layer that is kept; behind the last one, to the teacher's state behind its last layer.
With a the input of the projection, e what is missing to the teacher's state t, and a token's weight 1/|t|²:

    D = argmin  sum over tokens |e - D a|² / |t|²  +  λ |D|²,      λ = 0.3 · mean diagonal of  sum a aᵀ / |t|²

The weights make the first token of a text, whose state is enormous, count as much as any other. A bias is fitted along and
not held back. That dropped layers can be made up for by a linear map in closed form is ReplaceMe's (arXiv 2505.02819), which
fits one map for one row of layers, on the teacher's states; here every layer that is kept is fitted, each on what the ones
before it, already fitted, make of the texts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from distillkit.interrupts import check_interrupted
from distillkit.models.block_chain import BlockChain

RIDGE = 0.3  # λ in mean diagonals; 0.03 and 3 made slightly worse students of SmolLM2-135M's layers.
_PROBE_TOKENS = 32
# What the output of a block may differ from the prediction, relative to the change, and still be linear.
_NEARLY_LINEAR = 1e-2


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
        projection = self._last_projection()
        if projection is None:
            outputs = self.through()
            return LayerFit(layer, self.error(outputs), why="its output is not linear in its last projection"), outputs
        sums, outputs = self._sums(projection)
        before = self.error(outputs)
        change = sums.solve()
        if change is None:
            return LayerFit(layer, before, why="the numbers do not allow it"), outputs
        kept = [parameter.detach().clone() for parameter in projection.parameters(recurse=False)]
        _add(projection, change)
        fitted = self.through()
        after = self.error(fitted)
        if after < before:
            return LayerFit(layer, before, after), fitted
        with torch.no_grad():
            for parameter, value in zip(projection.parameters(recurse=False), kept, strict=True):
                parameter.copy_(value)
        return LayerFit(layer, before, why="it is as close as it can be"), outputs

    def _sums(self, projection: nn.Module) -> tuple[_Sums, list[Tensor | None]]:
        sums = _Sums(with_bias=getattr(projection, "bias", None) is not None)
        outputs: list[Tensor | None] = []
        for ids, state, target in zip(self.batches, self.states, self.targets, strict=True):
            check_interrupted()
            with _inputs_of(projection) as inputs:
                output = self._run(ids, state)
            wanted, weights = self._weighted(target, output)
            missing = wanted - output.flatten(0, 1).to(wanted.dtype) * weights
            sums.add(inputs[-1].flatten(0, -2).to(wanted.dtype), missing, weights)
            outputs.append(output)
        return sums, outputs

    def _last_projection(self) -> nn.Module | None:
        """The last linear layer that runs in the block and gives hidden states, if the block's output is linear in it."""
        ids = self.batches[0][:1, :_PROBE_TOKENS]
        state = self.states[0]
        state = None if state is None else state[:1, :_PROBE_TOKENS]
        ran: list[nn.Module] = []
        hooks = [
            module.register_forward_hook(lambda module, _values, _output: ran.append(module))
            for module in self.block.modules()
            if isinstance(module, (nn.Linear, Conv1D))
        ]
        # Rounding would hide what is not linear.
        autocast, self.chain.autocast = self.chain.autocast, None
        try:
            plain = self._run(ids, state)
            for hook in hooks:
                hook.remove()
            width = plain.shape[-1]
            last = next((module for module in reversed(ran) if _outputs(module) == width), None)
            if last is None or ran.count(last) != 1 or not self._is_its_own(last):
                return None
            return last if self._is_linear(last, ids, state, plain) else None
        finally:
            for hook in hooks:
                hook.remove()
            self.chain.autocast = autocast

    def _is_its_own(self, projection: nn.Module) -> bool:
        """Whether no other part of the model has the same weight."""
        own = {id(parameter) for parameter in projection.parameters(recurse=False)}
        found = [
            parameter
            for _, parameter in self.chain.model.named_parameters(remove_duplicate=False)
            if id(parameter) in own
        ]
        return len(found) == len(own)

    def _is_linear(self, projection: nn.Module, ids: Tensor, state: Tensor | None, plain: Tensor) -> bool:
        weight = projection.weight
        if not isinstance(weight, Tensor):
            return False
        generator = torch.Generator().manual_seed(0)
        change = torch.randn(weight.shape, generator=generator).to(weight.device, weight.dtype) * weight.detach().std()
        own = weight.detach().clone()
        with _inputs_of(projection) as inputs:
            self._run(ids, state)
        values = inputs[-1].flatten(0, -2)
        if len(values) != ids.numel():
            return False
        predicted = values @ (change if isinstance(projection, Conv1D) else change.T)
        try:
            with torch.no_grad():
                weight.add_(change)
            moved = (self._run(ids, state) - plain).flatten(0, 1)
        finally:
            with torch.no_grad():
                weight.copy_(own)
        apart = (moved - predicted).norm()
        return bool(apart <= _NEARLY_LINEAR * predicted.norm()) and bool(predicted.norm() > 0)


class _Sums:
    """The sums of the least squares, in fp64; of which bias is a last input that is 1."""

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
        gram, cross = (values.T @ values).cpu().double(), (values.T @ missing_nd).cpu().double()
        self.gram = gram if self.gram is None else self.gram.add_(gram)
        self.cross = cross if self.cross is None else self.cross.add_(cross)

    def solve(self) -> Tensor | None:
        """[m, d], or with a bias [m + 1, d]; None where it is no number."""
        if self.gram is None or self.cross is None:
            return None
        inputs = len(self.gram) - self.with_bias
        diagonal = self.gram.diagonal()
        ridge = RIDGE * diagonal[:inputs].mean()
        diagonal[:inputs] += ridge  # A view: it changes the matrix.
        triangle, failed = torch.linalg.cholesky_ex(self.gram)
        if int(failed) != 0:
            return None
        change = torch.cholesky_solve(self.cross, triangle)
        return change if bool(change.isfinite().all()) else None


def _outputs(module: nn.Module) -> int:
    return int(module.nf) if isinstance(module, Conv1D) else int(module.out_features)  # type: ignore[arg-type]


def _add(projection: Any, change: Tensor) -> None:
    """Add [m, d] to the weight, and a last row to the bias."""
    inputs = projection.weight.shape[0] if isinstance(projection, Conv1D) else projection.weight.shape[1]
    weights = change[:inputs] if isinstance(projection, Conv1D) else change[:inputs].T
    with torch.no_grad():
        projection.weight.add_(weights.to(projection.weight.device, projection.weight.dtype))
        if len(change) > inputs:
            projection.bias.add_(change[inputs].to(projection.bias.device, projection.bias.dtype))


@contextlib.contextmanager
def _inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """While this is open, the inputs of a module are noted."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _module, values: seen.append(values[0]))
    try:
        yield seen
    finally:
        hook.remove()
