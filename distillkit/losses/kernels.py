"""The element-wise part of the loss on a few rows: value and gradient with respect to the logits, in closed form.

Each function is a few lines over [n, V] numbers that `torch.compile` turns into one or two passes over memory; without
a compiler the same lines run one by one. The gradient is written over the logits, which are not needed after that.

For CE + τ²·KL(p_τ ‖ q_τ) the gradient of a row is w·(softmax(z) - onehot(y)) + a·τ·(q_τ - p_τ) (Hinton et al. 2015, arXiv
1503.02531).
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distillkit.device.number_formats import widen

# Numbers of the whole training (rows × columns) from which compiling, which takes up to half a minute, is worth it.
WORTH_COMPILING = 8_000_000_000


def hard_rows(logits_nV: Tensor, targets_n: Tensor, weights_n: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropies [n] in nats, and at the true tokens [n] the gradient of Σ weight·CE; the logits are overwritten with
    it everywhere else (`finish`).

    Computed in fp32, or fp64 if the logits are.

    Args:
        logits_nV: [n, V] of the student.
        targets_n: [n] the true tokens.
        weights_n: [n] the weight of each row's cross-entropy.
    """
    z = widen(logits_nV)
    normalizer = torch.logsumexp(z, -1)
    at_target = z.gather(1, targets_n[:, None])[:, 0]
    entropies = normalizer - at_target
    logits_nV.copy_(weights_n[:, None] * torch.exp(z - normalizer[:, None]))
    return entropies, weights_n * torch.expm1(-entropies)


def forward_kl_rows(
    logits_nV: Tensor,
    target_nV: Tensor,
    targets_n: Tensor,
    weights_n: Tensor,
    soft: Tensor,
    temperature: Tensor,
    *,
    tempered: bool,
    plain: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropies [n] and τ²·KL [n] in nats, and at the true tokens [n] the gradient of Σ weight·CE + soft·τ·KL; the
    logits are overwritten with it everywhere else (`finish`).

    Computed in fp32, or fp64 if the logits are.

    Args:
        logits_nV: [n, V] of the student.
        target_nV: [n, V] log-weights of the teacher at temperature 1, normalised or not; a row that is -inf throughout
            has no target and only its cross-entropy counts.
        targets_n: [n] the true tokens.
        weights_n: [n] the weight of each row's cross-entropy.
        soft: [] α·τ. Like τ a tensor, in the format of the computation: `torch.compile` takes a float for a constant at
            first, and the code that it then generates for other values gave wrong gradients (torch 2.13, CPU).
        temperature: [] τ.
        tempered: whether logits are divided by τ; where τ is 1 throughout one softmax of the student serves both terms.
        plain: whether `target_nV` has weights instead of their logarithms, 0 instead of -inf.
    """
    z = widen(logits_nV)
    normalizer = torch.logsumexp(z, -1)
    log_target = target_nV.to(z.dtype)
    log_total = torch.log(log_target.sum(-1)) if plain and not tempered else None
    log_target = torch.log(log_target) if plain else log_target
    log_target = log_target / temperature if tempered else log_target
    mass = torch.logsumexp(log_target, -1) if log_total is None else log_total
    usable = mass != -torch.inf  # Not ">": a NaN has to reach the loss, where it is noticed.
    # Where there is no target exp(-inf - 0) is 0, where -inf + inf would be NaN.
    mass = torch.where(usable, mass, 0.0)[:, None]
    tempered_normalizer = torch.logsumexp(z / temperature, -1)[:, None] if tempered else normalizer[:, None]
    weights, soft_n = weights_n[:, None], torch.where(usable, soft, 0.0)[:, None]

    def gradient(z: Tensor, log_target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient but for the true token's part, the teacher's probabilities and log p - log q."""
        log_p = log_target - mass
        log_q = (z / temperature if tempered else z) - tempered_normalizer
        p, q = torch.exp(log_p), torch.exp(log_q)
        hard = torch.exp(z - normalizer[:, None]) if tempered else q
        # In place: without a compiler each new [n, V] costs as much as what is computed.
        return torch.sub(q, p).mul_(soft_n).addcmul_(weights, hard), p, log_p - log_q

    places = targets_n[:, None]
    z_true = z.gather(1, places)
    at_target = gradient(z_true, log_target.gather(1, places))[0] - weights
    entropies = normalizer - z_true[:, 0]
    everywhere, p, difference = gradient(z, log_target)
    # Where p is 0 the product is 0 too, whatever the logarithms are.
    divergence = temperature**2 * (p * difference.masked_fill_(p.logical_not(), 0)).sum(-1)
    logits_nV.copy_(everywhere)
    return entropies, divergence, at_target[:, 0]


def finish(gradient_nV: Tensor, targets_n: Tensor, at_target_n: Tensor) -> Tensor:
    """Puts the gradient at the true tokens [n] where it belongs; returns `gradient_nV`, [n, V].

    A step of its own, because a compiler would write every number of the kernel twice for it.
    """
    rows = torch.arange(len(targets_n), device=targets_n.device)
    # Not scatter_, which copies all of it first (torch 2.13, CPU).
    return gradient_nV.index_put_((rows, targets_n), at_target_n.to(gradient_nV.dtype))


def compiler_available(device: torch.device) -> bool:
    """Whether `torch.compile` has what it needs here: a C++ compiler for the CPU, Triton for CUDA."""
    if device.type == "cpu":
        return any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled, for any number of rows; compiled at its first call."""
    return torch.compile(function, dynamic=True)


def compile_failure(
    kernel: Callable[..., Any] | None, device: torch.device, logits: torch.dtype, **options: bool
) -> str | None:
    """Compiles what a training will use, before it begins; None, or in a line why that does not work here.

    Args:
        kernel: `forward_kl_rows`, or None where there is only a cross-entropy.
        logits: the format of the student's logits.
        options: of `forward_kl_rows`; with `plain` its target is in fp32, else in the format of the logits.
    """
    z, targets = torch.zeros(16, 64, dtype=logits, device=device), torch.zeros(16, dtype=torch.long, device=device)
    weights, one = torch.ones(16, device=device), torch.ones((), device=device)
    try:
        compiled(hard_rows)(z, targets, weights)
        if kernel is not None:
            target = z.float() if options.get("plain") else z.clone()
            compiled(kernel)(z, target, targets, weights, one, one, **options)
    except Exception as error:  # Compilers fail in as many ways as there are machines.
        if not type(error).__module__.startswith("torch."):
            raise
        return next(line for line in (*str(error).splitlines(), type(error).__name__) if line.strip())
    return None
