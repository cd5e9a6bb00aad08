"""The vocabulary-sized loss without the vocabulary-sized memory.

Logits are computed, used and forgotten for a few rows at a time, and the gradients with respect to the hidden states
and the head are computed in the same pass: memory is a chunk of rows times the vocabulary plus the two gradients, and
on a CPU the chunk stays in the cache. After Liger-Kernel's fused linear losses (arXiv 2410.10989) and Cut
Cross-Entropy (arXiv 2411.09009); the value and gradient are those of `losses.objective`.

Shapes: N target rows, R of them with a teacher distribution, D the student's hidden size, V its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from distillkit.losses.kernels import compiled, forward_kl_rows, hard_rows
from distillkit.losses.soft import SoftLoss
from distillkit.losses.sparse import SparseTargets, sparse_kl_rows

# Numbers of a chunk: what keeps a GPU busy, or is little memory on a CPU.
_CHUNK_NUMBERS = {"cpu": 1 << 24, "cuda": 1 << 27}
# Rows of a chunk on a CPU. Every chunk adds to the gradient of the whole head, so few rows are slow whatever V is; more
# than these gain nothing, and without a compiler the passes over the logits should stay near the cache.
_CPU_ROWS, _CPU_ROWS_UNCOMPILED = 256, 128


@dataclass(frozen=True)
class StudentOutput:
    """A student's last hidden states and what makes logits of them.

    Attributes:
        hidden_BTD: [B, T, D], with its graph.
        head: [n, D] -> [n, V].
        parameters: the trained parameters that `head` uses.
        columns: V.
    """

    hidden_BTD: Tensor
    head: Callable[[Tensor], Tensor]
    parameters: tuple[Tensor, ...]
    columns: int


class RowLoss(Protocol):
    """The soft term of a row (`losses.soft.SoftLoss` and others)."""

    def rows(self, log_target_RV: Tensor, student_logits_RV: Tensor, /) -> Tensor:
        """[R] nats."""
        ...


class SoftTargets(Protocol):
    """The teacher's say about some of the target rows."""

    @property
    def rows(self) -> Tensor:
        """[R] int64, ascending, unique: positions among the N target rows."""
        ...

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        """[end - begin, columns] log-weights of rows[begin:end] at temperature 1; -inf throughout: no target."""
        ...


@dataclass(frozen=True)
class ChunkedLoss:
    """What a pass over all rows gives.

    Attributes:
        loss: [] (α·Σ τ²·D + Σ w·CE) / divisor, with a graph to the hidden states and the head's parameters.
        cross_entropy_N: [N] nats, without a graph.
        soft_sum: [] Σ τ²·D, nats, without a graph.
        soft_rows: the rows summed over.
    """

    loss: Tensor
    cross_entropy_N: Tensor
    soft_sum: Tensor
    soft_rows: int


def chunked_loss(
    student: StudentOutput,
    rows_N: Tensor,
    targets_N: Tensor,
    hard_weights_N: Tensor,
    soft_targets: SoftTargets | SparseTargets | None,
    soft: RowLoss,
    *,
    alpha: float,
    divisor: Tensor,
    chunk_rows: int | None = None,
    compile_kernels: bool = False,
) -> ChunkedLoss:
    """The distillation loss of a batch and, already computed, its gradients.

    Rows are selected before the softmax: what is masked reaches neither value nor gradient. Sums are in fp32 (fp64 if
    the logits are).

    Args:
        rows_N: [N] ascending indices into the flattened [B·T] rows.
        targets_N: [N] the true next token of each.
        hard_weights_N: [N] the weight of each row's cross-entropy; rows of weight 0 are left out of the loss.
        soft_targets: None: no soft term.
        soft: the soft term of a row.
        alpha: the weight of the soft term.
        divisor: [] what the sum is divided by: the targets of the whole optimizer step.
        chunk_rows: rows at a time; default: by the device and V.
        compile_kernels: compile the element-wise part (`losses.kernels`).
    """
    hidden_ND = student.hidden_BTD.flatten(0, 1).index_select(0, rows_N)
    chunk = chunk_rows or rows_per_chunk(student.columns, hidden_ND.device, compiled=compile_kernels)
    runner = _Pass(
        student.head, targets_N, hard_weights_N, soft_targets, soft, alpha, student.columns, chunk, compile_kernels
    )
    results: Any = _Chunked.apply(runner, divisor, hidden_ND, *student.parameters)
    loss, cross_entropy_N, soft_sum = results
    return ChunkedLoss(loss, cross_entropy_N, soft_sum, runner.soft_rows)


def token_log_probs(
    student: StudentOutput, rows_N: Tensor, targets_N: Tensor, *, chunk_rows: int | None = None
) -> Tensor:
    """[N] log-probabilities of the true tokens, without a graph, a few rows at a time."""
    hidden_ND = student.hidden_BTD.detach().flatten(0, 1).index_select(0, rows_N)
    chunk = chunk_rows or rows_per_chunk(student.columns, hidden_ND.device)
    parts = [
        -functional.cross_entropy(wide(student.head(hidden)), targets, reduction="none")
        for hidden, targets in zip(hidden_ND.split(chunk), targets_N.split(chunk), strict=True)
    ]
    return torch.cat(parts) if parts else hidden_ND.new_zeros(0, dtype=torch.float32)


def rows_per_chunk(columns: int, device: torch.device, *, compiled: bool = False) -> int:
    """How many rows of so many columns are computed at a time."""
    numbers = _CHUNK_NUMBERS.get(device.type, 1 << 25)
    if device.type != "cpu":
        return max(16, numbers // max(1, columns))
    numbers, most = (numbers, _CPU_ROWS) if compiled else (numbers // 2, _CPU_ROWS_UNCOMPILED)
    return max(16, min(most, numbers // max(1, columns)))


def wide(values: Tensor) -> Tensor:
    """In float32, or float64 if they are."""
    return values if values.dtype == torch.float64 else values.float()


@dataclass
class _Pass:
    """One pass over all rows; see `chunked_loss` for the arguments. Rows with a teacher come first, so that a chunk
    has either the teacher throughout or not at all."""

    head: Callable[[Tensor], Tensor]
    targets_N: Tensor
    hard_weights_N: Tensor
    soft_targets: SoftTargets | SparseTargets | None
    soft: RowLoss
    alpha: float
    columns: int
    chunk: int
    compiled: bool
    soft_rows: int = 0

    def run(self, hidden_ND: Tensor, parameters: Sequence[Tensor]) -> _Sums:
        """The sums, not yet divided, and their gradients."""
        count = len(hidden_ND)
        guided = self.soft_targets.rows if self.soft_targets is not None and self.alpha != 0 else None
        order, first_hard = torch.arange(count, device=hidden_ND.device), 0
        if guided is not None:
            alone = torch.ones(count, dtype=torch.bool, device=hidden_ND.device)
            alone[guided] = False
            order, first_hard = torch.cat([guided, order[alone]]), len(guided)
        sums = _Sums.zeros(hidden_ND, parameters)
        for begin, end in _chunks(count, first_hard, self.chunk):
            rows = order[begin:end]
            with torch.enable_grad():
                hidden = hidden_ND.index_select(0, rows).requires_grad_()
                logits = self.head(hidden)
            gradient = self._terms(logits.detach(), rows, begin if begin < first_hard else None, sums)
            inputs = [hidden, *parameters]
            if logits.requires_grad:
                found = torch.autograd.grad(logits, inputs, gradient, allow_unused=True)
                sums.add_gradients(rows, found)
        return sums

    def _terms(self, logits_nV: Tensor, rows: Tensor, soft_begin: int | None, sums: _Sums) -> Tensor:
        """Adds the values of a chunk and gives the gradient with respect to its logits."""
        targets = self.targets_N[rows]
        weights = self.hard_weights_N[rows].to(torch.float64 if logits_nV.dtype == torch.float64 else torch.float32)
        if soft_begin is None or self.soft_targets is None:
            entropies, gradient = self._kernel(hard_rows)(logits_nV, targets, weights)
        elif isinstance(self.soft_targets, SparseTargets):
            entropies, gradient = self._sparse(self.soft_targets, logits_nV, soft_begin, targets, weights, sums)
        else:
            target = self.soft_targets.log_target(soft_begin, soft_begin + len(rows), self.columns)
            if isinstance(self.soft, SoftLoss) and self.soft.is_forward_kl:
                alpha, temperature = weights.new_tensor(self.alpha), weights.new_tensor(self.soft.temperature)
                entropies, soft, usable, gradient = self._kernel(forward_kl_rows)(
                    logits_nV, target, targets, weights, alpha, temperature
                )
                sums.soft += soft.sum()
                self.soft_rows += int(usable.sum())
            else:
                entropies, gradient = self._any_divergence(logits_nV, target, targets, weights, sums)
        sums.cross_entropy[rows] = entropies
        # Left out rather than multiplied: 0 · inf is NaN.
        sums.hard += (entropies.masked_fill(weights == 0, 0) * weights).sum()
        return gradient

    def _sparse(
        self, sparse: SparseTargets, logits_nV: Tensor, begin: int, targets: Tensor, weights: Tensor, sums: _Sums
    ) -> tuple[Tensor, Tensor]:
        if not isinstance(self.soft, SoftLoss) or not self.soft.is_forward_kl:
            raise ValueError("sparse targets are for the forward KL")
        end = begin + len(targets)
        alpha, temperature = weights.new_tensor(self.alpha), weights.new_tensor(self.soft.temperature)
        entropies, soft, gradient = self._kernel(sparse_kl_rows)(
            logits_nV, sparse.ids_RK[begin:end], sparse.probabilities_RK[begin:end], sparse.tails_R[begin:end],
            targets, weights, alpha, temperature,
        )  # fmt: skip
        sums.soft += soft.sum()
        self.soft_rows += len(targets)
        return entropies, gradient

    def _any_divergence(
        self, logits_nV: Tensor, target: Tensor, targets: Tensor, weights: Tensor, sums: _Sums
    ) -> tuple[Tensor, Tensor]:
        """What has no closed form here goes through autograd, chunk by chunk all the same."""
        entropies, gradient = self._kernel(hard_rows)(logits_nV, targets, weights)
        usable = target.amax(-1) != -torch.inf  # Not ">": a NaN has to reach the loss, where it is noticed.
        with torch.enable_grad():
            leaf = logits_nV.detach().requires_grad_()
            rows = self.soft.rows(wide(target[usable]), wide(leaf[usable]))
            (soft_gradient,) = torch.autograd.grad(rows.sum(), leaf)
        sums.soft += rows.detach().sum()
        self.soft_rows += len(rows)
        return entropies, gradient + self.alpha * soft_gradient

    def _kernel(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return compiled(function) if self.compiled else function


@dataclass
class _Sums:
    """What a pass adds up, in fp32 or fp64."""

    hard: Tensor
    soft: Tensor
    cross_entropy: Tensor
    hidden_gradient: Tensor
    gradients: list[Tensor]

    @classmethod
    def zeros(cls, hidden_ND: Tensor, parameters: Sequence[Tensor]) -> _Sums:
        dtype = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        nothing = hidden_ND.new_zeros((), dtype=dtype)
        return cls(
            nothing, nothing.clone(), hidden_ND.new_zeros(len(hidden_ND), dtype=dtype), torch.zeros_like(hidden_ND),
            [torch.zeros_like(parameter, dtype=dtype) for parameter in parameters],
        )  # fmt: skip

    def add_gradients(self, rows: Tensor, found: Sequence[Tensor | None]) -> None:
        if found[0] is not None:
            self.hidden_gradient[rows] = found[0]
        for gradient, part in zip(self.gradients, found[1:], strict=True):
            if part is not None:
                gradient += part


def _chunks(count: int, boundary: int, size: int) -> list[tuple[int, int]]:
    """[0, count) in parts of at most `size`, none of them across `boundary`."""
    starts = [*range(0, boundary, size), *range(boundary, count, size)]
    return [(start, min(start + size, boundary if start < boundary else count)) for start in starts]


class _Chunked(torch.autograd.Function):
    """Value and gradients in the forward pass; backward only scales what is there."""

    @staticmethod
    def forward(ctx: Any, runner: _Pass, divisor: Tensor, hidden_ND: Tensor, *parameters: Tensor) -> Any:
        sums = runner.run(hidden_ND.detach(), parameters)
        scale = 1 / divisor.to(sums.hard.dtype).clamp(min=1)
        ctx.save_for_backward(scale, sums.hidden_gradient, *sums.gradients)
        ctx.dtypes = [parameter.dtype for parameter in parameters]
        loss = sums.hard if runner.alpha == 0 else sums.hard + runner.alpha * sums.soft
        ctx.mark_non_differentiable(sums.cross_entropy, sums.soft)
        return loss * scale, sums.cross_entropy, sums.soft

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        scale, hidden_gradient, *gradients = ctx.saved_tensors
        factor = outputs[0] * scale
        scaled = [(gradient * factor).to(dtype) for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return None, None, (hidden_gradient * factor).to(hidden_gradient.dtype), *scaled
