"""The vocabulary-sized loss without the vocabulary-sized memory.

The distillation objective is L = (α·Σ τ²·D(p_τ ‖ q_τ) + β·Σ CE(q, y)) / N (Hinton et al. 2015, arXiv 1503.02531): sums
over rows, divided once by the number N of targets in the whole optimizer step (all micro-batches, all processes). A mean
per micro-batch would weigh tokens by the accident of their batch.

Logits are computed, used and overwritten by their gradient for some rows at a time, and the gradients with respect to the
hidden states and the head are computed in the same pass: memory is a chunk of rows times the vocabulary plus the two
gradients. After Liger-Kernel's fused linear losses (arXiv 2410.10989) and Cut Cross-Entropy (arXiv 2411.09009). Value and
gradients are those of the plain form on whole logits, which tests/plain_objective.py and the self-tests write down.

Shapes: N target rows, R of them with a teacher distribution, D the student's hidden size, V its columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from distillkit.device.number_formats import product_format, sum_format, widen
from distillkit.device.row_tiles import row_tiles
from distillkit.losses.kernels import compiled, finish, forward_kl_rows, hard_rows
from distillkit.losses.linear_head import LinearHead
from distillkit.losses.sparse import SparseTargets, finish_sparse, sparse_kl_rows
from distillkit.losses.tempered import SoftLoss

# Numbers of a chunk: enough to keep a GPU busy, little memory on a CPU.
_CHUNK_NUMBERS = {"cpu": 1 << 25, "cuda": 1 << 27}
# Rows of a chunk on a CPU. Every chunk adds to the gradient of the whole head, so few rows are slow whatever V is; more
# than these gain little.
_CPU_ROWS = 256


@dataclass(frozen=True)
class StudentOutput:
    """A student's last hidden states and what makes logits of them.

    Attributes:
        hidden_BTD: [B, T, D], with its graph.
        head: [n, D] -> [n, V].
        parameters: the trained parameters that `head` uses.
        columns: V.
        linear: the head again where it is a plain linear layer, which saves time and memory.
    """

    hidden_BTD: Tensor
    head: Callable[[Tensor], Tensor]
    parameters: tuple[Tensor, ...]
    columns: int
    linear: LinearHead | None = None


class RowLoss(Protocol):
    """The soft term of a row (`losses.tempered.SoftLoss` and others)."""

    def rows(self, log_target_RV: Tensor, student_logits_RV: Tensor, /) -> Tensor:
        """[R] nats, of the teacher's log-weights at temperature 1 and the student's logits, [R, V] each."""
        ...


class SoftTargets(Protocol):
    """The teacher's distributions at some of the target rows."""

    @property
    def rows(self) -> Tensor:
        """[R] int64, ascending, unique: positions among the N target rows."""
        ...

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        """[end - begin, columns] log-weights of rows[begin:end] at temperature 1; -inf throughout: no target."""
        ...


@runtime_checkable
class PlainTargets(SoftTargets, Protocol):
    """Targets that have the weights themselves, not only their logarithms: that saves the forward KL a pass over them."""

    def target(self, begin: int, end: int, columns: int) -> Tensor:
        """[end - begin, columns] the exponentials of `log_target`, up to a factor for each row."""
        ...


@runtime_checkable
class StudentsTargets(SoftTargets, Protocol):
    """Targets that depend on what the student itself says at these rows, as a constant."""

    def beside(self, student_logits_nV: Tensor) -> None:
        """Take note of the student's logits at the rows that are asked for next, [end - begin, V]."""
        ...


@dataclass(frozen=True)
class ChunkedLoss:
    """The result of a pass over all rows.

    Attributes:
        loss: [] (α·Σ τ²·D + Σ w·CE) / divisor, with a graph to the hidden states and the head's parameters.
        cross_entropy_N: [N] nats, without a graph.
        soft_sum: [] Σ τ²·D, nats, without a graph.
    """

    loss: Tensor
    cross_entropy_N: Tensor
    soft_sum: Tensor


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
        student: hidden states and head.
        rows_N: [N] ascending indices into the flattened [B·T] rows.
        targets_N: [N] the true next token of each.
        hard_weights_N: [N] the weight of each row's cross-entropy; rows of weight 0 are left out of the loss.
        soft_targets: None: no soft term.
        soft: the soft term of a row.
        alpha: the weight of the soft term.
        divisor: [] what the sum is divided by: the targets of the whole optimizer step.
        chunk_rows: rows at a time; default: by the device and V.
        compile_kernels: compile the element-wise part (`losses.kernels`).

    Raises:
        ValueError: `soft_targets` are sparse and `soft` is not the forward KL.
    """
    hidden_ND = student.hidden_BTD.flatten(0, 1).index_select(0, rows_N)
    chunk = chunk_rows or rows_per_chunk(student.columns, hidden_ND.device)
    head = student.linear or AutogradHead(student.head, student.parameters)
    runner = _Pass(head, targets_N, hard_weights_N, soft_targets, soft, alpha, student.columns, chunk, compile_kernels)
    results: Any = _Chunked.apply(runner, divisor, hidden_ND, *head.trained)
    loss, cross_entropy_N, soft_sum = results
    return ChunkedLoss(loss, cross_entropy_N, soft_sum)


def token_log_probs(
    student: StudentOutput, rows_N: Tensor, targets_N: Tensor, *, chunk_rows: int | None = None
) -> Tensor:
    """[N] log-probabilities of the true tokens in nats, without a graph, a few rows at a time.

    Args:
        student, rows_N, targets_N, chunk_rows: as for `chunked_loss`.
    """
    hidden_ND = student.hidden_BTD.detach().flatten(0, 1).index_select(0, rows_N)
    chunk = chunk_rows or rows_per_chunk(student.columns, hidden_ND.device)
    log_probs = [
        -functional.cross_entropy(widen(student.head(hidden)), targets, reduction="none")
        for hidden, targets in zip(hidden_ND.split(chunk), targets_N.split(chunk), strict=True)
    ]
    return torch.cat(log_probs) if log_probs else hidden_ND.new_zeros(0, dtype=torch.float32)


def rows_per_chunk(columns: int, device: torch.device) -> int:
    """How many rows of so many columns are computed at a time."""
    rows = max(16, _CHUNK_NUMBERS.get(device.type, 1 << 25) // max(1, columns))
    return min(rows, _CPU_ROWS) if device.type == "cpu" else rows


_SoftTerms = Callable[[Tensor, slice, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(logits [n, V] of some rows of a chunk, which rows, true tokens [n], weights of their cross-entropies [n]) -> cross-entropies
[n] and soft terms of those rows that have one, in nats; the logits are overwritten with their gradient."""


class AutogradHead:
    """Any head, by autograd; the interface is that of `LinearHead`.

    Args:
        head: [n, D] -> [n, V].
        trained: the trained parameters that it uses.
    """

    def __init__(self, head: Callable[[Tensor], Tensor], trained: tuple[Tensor, ...]) -> None:
        self.trained = trained
        self._head = head
        self._sums: list[Tensor] = []
        self._graph: tuple[Tensor, Tensor] | None = None

    def begin(self, hidden: Tensor) -> None:
        self._sums = [torch.zeros_like(parameter, dtype=sum_format(hidden)) for parameter in self.trained]

    def logits(self, hidden_nD: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = hidden_nD.detach().requires_grad_()
            logits = self._head(leaf)
        self._graph = leaf, logits
        return logits.detach().clone()  # The graph may need them as they are.

    def backward(self, gradient_nV: Tensor) -> Tensor:
        if self._graph is None:
            raise ValueError("backward without logits")
        (leaf, logits), self._graph = self._graph, None
        hidden_gradient, *gradients = torch.autograd.grad(logits, [leaf, *self.trained], gradient_nV, allow_unused=True)
        for total, gradient in zip(self._sums, gradients, strict=True):
            if gradient is not None:
                total += gradient
        return torch.zeros_like(leaf) if hidden_gradient is None else hidden_gradient

    def hand_over(self, factor: Tensor) -> list[Tensor | None]:
        return [(total * factor).to(like.dtype) for total, like in zip(self._sums, self.trained, strict=True)]


@dataclass
class _Pass:
    """One pass over all rows; see `chunked_loss` for the arguments. Rows with a teacher come first, so that a chunk
    has either the teacher throughout or not at all."""

    head: LinearHead | AutogradHead
    targets_N: Tensor
    hard_weights_N: Tensor
    soft_targets: SoftTargets | SparseTargets | None
    soft: RowLoss
    alpha: float
    columns: int
    chunk: int
    compiled: bool

    def run(self, hidden_ND: Tensor, divisor: Tensor) -> _Sums:
        """The sums, not divided, and the gradients of the loss but for `_Sums.factor`."""
        count = len(hidden_ND)
        with_teacher = self.soft_targets.rows if self.soft_targets is not None and self.alpha != 0 else None
        order, first_hard = torch.arange(count, device=hidden_ND.device), 0
        if with_teacher is not None:
            hard_only = torch.ones(count, dtype=torch.bool, device=hidden_ND.device)
            hard_only[with_teacher] = False
            order, first_hard = torch.cat([with_teacher, order[hard_only]]), len(with_teacher)
        sums = _Sums.zeros(hidden_ND, divisor)
        self.head.begin(hidden_ND)
        for begin, end in _chunks(count, first_hard, self.chunk):
            rows = order[begin:end]
            logits = self.head.logits(hidden_ND.index_select(0, rows))
            gradient = self._terms(logits, rows, begin if begin < first_hard else None, sums)
            sums.hidden_gradient[rows] = self.head.backward(gradient).to(hidden_ND.dtype)
        return sums

    def _terms(self, logits_nV: Tensor, rows: Tensor, soft_begin: int | None, sums: _Sums) -> Tensor:
        """Adds the values of a chunk and gives the gradient with respect to its logits, in their place."""
        targets = self.targets_N[rows]
        weights = self.hard_weights_N[rows].to(sums.hard.dtype)
        scaled = weights * sums.early
        soft_terms = None if soft_begin is None else self._soft_terms(logits_nV, soft_begin, sums)
        entropies = sums.hard.new_empty(len(rows))
        for tile in row_tiles(len(rows), self.columns, logits_nV.device):
            logits, at = logits_nV[tile], targets[tile]
            if soft_terms is None:
                entropies[tile], at_target = self._kernel(hard_rows)(logits, at, scaled[tile])
                finish(logits, at, at_target)
            else:
                entropies[tile], soft_n = soft_terms(logits, tile, at, scaled[tile])
                sums.soft += soft_n.sum()
        sums.cross_entropy[rows] = entropies
        # Left out rather than multiplied: 0 · inf is NaN.
        sums.hard += (entropies.masked_fill(weights == 0, 0) * weights).sum()
        return logits_nV

    def _soft_terms(self, logits_nV: Tensor, begin: int, sums: _Sums) -> _SoftTerms:
        """What computes both terms of some rows of a chunk, whose first row is row `begin` of the soft targets.

        The teacher's distributions are made here, for the whole chunk: that is a matrix product.
        """
        if self.soft_targets is None:
            raise AssertionError("rows with a teacher have targets")
        if isinstance(self.soft_targets, SparseTargets):
            return self._sparse(self.soft_targets, begin, sums)
        if isinstance(self.soft_targets, StudentsTargets):
            self.soft_targets.beside(logits_nV)
        end = begin + len(logits_nV)
        if not (isinstance(self.soft, SoftLoss) and self.soft.is_forward_kl):
            return self._any_divergence(self.soft_targets.log_target(begin, end, self.columns), sums)
        if isinstance(self.soft_targets, PlainTargets):
            return self._forward_kl(self.soft, self.soft_targets.target(begin, end, self.columns), sums, plain=True)
        return self._forward_kl(self.soft, self.soft_targets.log_target(begin, end, self.columns), sums, plain=False)

    def _forward_kl(self, soft: SoftLoss, target_nV: Tensor, sums: _Sums, *, plain: bool) -> _SoftTerms:
        softness, temperature, tempered = self._softness(soft, sums)
        kernel = self._kernel(forward_kl_rows)

        def terms(logits: Tensor, tile: slice, targets: Tensor, scaled: Tensor) -> tuple[Tensor, Tensor]:
            entropies, soft_n, at_target = kernel(
                logits, target_nV[tile], targets, scaled, softness, temperature, tempered=tempered, plain=plain
            )
            finish(logits, targets, at_target)
            return entropies, soft_n

        return terms

    def _softness(self, soft: SoftLoss, sums: _Sums) -> tuple[Tensor, Tensor, bool]:
        """ατ times `_Sums.early` [], τ [], and whether logits are divided by it."""
        temperature = sums.hard.new_tensor(soft.temperature)
        return self.alpha * temperature * sums.early, temperature, soft.tempered

    def _sparse(self, sparse: SparseTargets, first: int, sums: _Sums) -> _SoftTerms:
        if not isinstance(self.soft, SoftLoss) or not self.soft.is_forward_kl:
            raise ValueError("sparse targets are for the forward KL")
        softness, kernel = self._softness(self.soft, sums), self._kernel(sparse_kl_rows)

        def terms(logits: Tensor, tile: slice, targets: Tensor, scaled: Tensor) -> tuple[Tensor, Tensor]:
            begin, end = first + tile.start, first + tile.stop
            ids, probabilities = sparse.ids_RK[begin:end], sparse.probabilities_RK[begin:end]
            entropies, soft_n, at_ids, at_target = kernel(
                logits, ids, probabilities, sparse.tails_R[begin:end], targets, scaled, *softness
            )
            finish_sparse(logits, ids, probabilities, at_ids, targets, at_target)
            return entropies, soft_n

        return terms

    def _any_divergence(self, target_nV: Tensor, sums: _Sums) -> _SoftTerms:
        """The soft terms that have no closed form: through autograd, a few rows at a time all the same."""

        def terms(logits: Tensor, tile: slice, targets: Tensor, scaled: Tensor) -> tuple[Tensor, Tensor]:
            target = target_nV[tile]
            usable = target.amax(-1) != -torch.inf  # Not ">": a NaN has to reach the loss, where it is noticed.
            soft_n, soft_gradient = sums.soft.new_zeros(0), None
            if bool(usable.any()):  # A divergence from elsewhere need not know what to do with no rows.
                with torch.enable_grad():
                    leaf = logits.detach().clone().requires_grad_()
                    soft_n = self.soft.rows(widen(target[usable]), widen(leaf[usable]))
                    (soft_gradient,) = torch.autograd.grad(soft_n.sum(), leaf)
            entropies, at_target = self._kernel(hard_rows)(logits, targets, scaled)
            finish(logits, targets, at_target)
            if soft_gradient is not None:
                logits.add_((self.alpha * sums.early * soft_gradient).to(logits.dtype))
            return entropies, soft_n.detach()

        return terms

    def _kernel(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return compiled(function) if self.compiled else function


@dataclass
class _Sums:
    """The sums of a pass, in fp32 or fp64, and its gradient.

    Attributes:
        early: [] what gradients are multiplied by from the beginning: 1 / divisor, or 1 where that could underflow.
        factor: [] what they have yet to be multiplied by.
    """

    hard: Tensor
    soft: Tensor
    cross_entropy: Tensor
    hidden_gradient: Tensor
    early: Tensor
    factor: Tensor

    @classmethod
    def zeros(cls, hidden_ND: Tensor, divisor: Tensor) -> _Sums:
        dtype = sum_format(hidden_ND)
        nothing, one = hidden_ND.new_zeros((), dtype=dtype), hidden_ND.new_ones((), dtype=dtype)
        scale = 1 / divisor.to(dtype).clamp(min=1)
        early, factor = (one, scale) if product_format(hidden_ND) == torch.float16 else (scale, one)
        each = hidden_ND.new_zeros(len(hidden_ND), dtype=dtype)
        return cls(nothing, nothing.clone(), each, torch.zeros_like(hidden_ND), early, factor)


def _chunks(count: int, boundary: int, size: int) -> list[tuple[int, int]]:
    """[0, count) in ranges of at most `size`, none of them across `boundary`."""
    starts = [*range(0, boundary, size), *range(boundary, count, size)]
    return [(start, min(start + size, boundary if start < boundary else count)) for start in starts]


class _Chunked(torch.autograd.Function):
    """Value and gradients in the forward pass; backward only scales what is there."""

    @staticmethod
    def forward(ctx: Any, runner: _Pass, divisor: Tensor, hidden_ND: Tensor, *parameters: Tensor) -> Any:
        sums = runner.run(hidden_ND.detach(), divisor)
        ctx.head, ctx.factor, ctx.hidden_gradient = runner.head, sums.factor, sums.hidden_gradient
        loss = sums.hard if runner.alpha == 0 else sums.hard + runner.alpha * sums.soft
        ctx.mark_non_differentiable(sums.cross_entropy, sums.soft)
        return loss * sums.early * sums.factor, sums.cross_entropy, sums.soft

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        factor = outputs[0] * ctx.factor
        hidden_gradient = (ctx.hidden_gradient * factor).to(ctx.hidden_gradient.dtype)
        return None, None, hidden_gradient, *ctx.head.hand_over(factor)
