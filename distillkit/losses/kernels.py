"""The element-wise part of the loss on a few rows: value and gradient with respect to the logits, in closed form.

Each function is a few lines over [n, V] numbers that `torch.compile` turns into one or two passes over memory; without
a compiler the same lines run one by one. For CE + τ²·KL(p_τ ‖ q_τ) the gradient of a row is
w·(softmax(z) - onehot(y)) + a·τ·(q_τ - p_τ) (Hinton et al. 2015, arXiv 1503.02531).
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Numbers of the whole training (rows × columns) from which compiling, which takes up to half a minute, is worth it.
WORTH_COMPILING = 2_000_000_000


def hard_rows(logits_nV: Tensor, targets_n: Tensor, weights_n: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropies [n] in nats, and the gradient [n, V] of Σ weight·CE, in the logits' format.

    Computed in fp32, or fp64 if the logits are.
    """
    z = logits_nV if logits_nV.dtype == torch.float64 else logits_nV.float()
    normalizer = torch.logsumexp(z, -1)
    entropies = normalizer - z.gather(1, targets_n[:, None])[:, 0]
    gradient = weights_n[:, None] * torch.exp(z - normalizer[:, None])
    gradient = gradient.scatter_add(1, targets_n[:, None], -weights_n[:, None])
    return entropies, gradient.to(logits_nV.dtype)


def forward_kl_rows(
    logits_nV: Tensor, log_target_nV: Tensor, targets_n: Tensor, weights_n: Tensor, alpha: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cross-entropies [n], τ²·KL [n], whether a row has a target [n], and the gradient [n, V] of Σ weight·CE + α·τ²·KL.

    Computed in fp32, or fp64 if the logits are.

    Args:
        log_target_nV: log-weights of the teacher at temperature 1, normalised or not; a row that is -inf throughout
            has no target and only its cross-entropy counts.
        alpha: [] α. Like τ a tensor, in the format of the computation: `torch.compile` takes a float for a constant at
            first, and the code that it then generates for other values gave wrong gradients (torch 2.13, CPU).
        temperature: [] τ.
    """
    z = logits_nV if logits_nV.dtype == torch.float64 else logits_nV.float()
    normalizer = torch.logsumexp(z, -1)
    entropies = normalizer - z.gather(1, targets_n[:, None])[:, 0]
    log_target = log_target_nV.to(z.dtype) / temperature
    mass = torch.logsumexp(log_target, -1)
    usable = mass != -torch.inf  # Not ">": a NaN has to reach the loss, where it is noticed.
    # Where there is no target exp(-inf - 0) is 0, where -inf + inf would be NaN.
    log_p = log_target - torch.where(usable, mass, 0.0)[:, None]
    p = torch.exp(log_p)
    tempered = z / temperature
    log_q = tempered - torch.logsumexp(tempered, -1)[:, None]
    # Where p is 0 the product is 0 too, whatever the logarithms are.
    divergence = temperature**2 * (p * torch.where(p == 0, 0.0, log_p - log_q)).sum(-1)
    soft = torch.where(usable, alpha * temperature, 0.0)
    gradient = weights_n[:, None] * torch.exp(z - normalizer[:, None]) + soft[:, None] * (torch.exp(log_q) - p)
    gradient = gradient.scatter_add(1, targets_n[:, None], -weights_n[:, None])
    return entropies, divergence, usable, gradient.to(logits_nV.dtype)


def compiler_available(device: torch.device) -> bool:
    """Whether `torch.compile` has what it needs here: a C++ compiler for the CPU, Triton for CUDA."""
    if device.type == "cpu":
        return any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled, for any number of rows; compiled at its first call."""
    return torch.compile(function, dynamic=True)


def compile_failure(device: torch.device, logits: torch.dtype) -> str | None:
    """Compiles both kernels, for logits of a format; None, or in a line why that does not work here."""
    z, targets = torch.zeros(16, 64, dtype=logits, device=device), torch.zeros(16, dtype=torch.long, device=device)
    weights = torch.ones(16, device=device)
    try:
        compiled(hard_rows)(z, targets, weights)
        compiled(forward_kl_rows)(z, z.float(), targets, weights, weights.new_tensor(1.0), weights.new_tensor(1.0))
    except Exception as error:  # Compilers fail in as many ways as there are machines.
        if not type(error).__module__.startswith("torch."):
            raise
        return next(line for line in (*str(error).splitlines(), type(error).__name__) if line.strip())
    return None
