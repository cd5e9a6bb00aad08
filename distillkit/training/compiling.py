"""Whether the element-wise part of a training's loss is compiled, and compiling it before the training begins."""

from __future__ import annotations

import torch

from distillkit.console import Console
from distillkit.device.precision import Compute
from distillkit.errors import PreconditionError
from distillkit.losses.kernels import WORTH_COMPILING, compile_failure, compiler_available, forward_kl_rows
from distillkit.settings.parameters import Parameters
from distillkit.training.objectives import needs_teacher


def compile_loss(config: Parameters, compute: Compute, numbers: int, console: Console, *, aligned: bool) -> bool:
    """Compile it if that pays. By the amount of work alone, so that a resumed run decides as the first one did.

    Args:
        numbers: logits of one epoch.
        aligned: whether the teacher's probabilities come by an alignment.

    Raises:
        PreconditionError: it was asked for and is not possible.
    """
    if config.compile_loss == "off" or not compiler_available(compute.device):
        if config.compile_loss == "on":
            raise PreconditionError(
                f"compile_loss on: there is no compiler for {compute.device.type}",
                hint="install g++ (on a GPU: triton), or leave compile_loss at auto",
            )
        return False
    if config.compile_loss == "auto" and numbers * config.epochs < WORTH_COMPILING:
        return False
    soft = needs_teacher(config.box_type, config.alpha) and config.divergence == "forward-kl"
    with console.progress("compiling the loss", unit="s"):
        failure = compile_failure(
            forward_kl_rows if soft else None, compute.device, compute.autocast or torch.float32,
            tempered=config.temperature != 1, plain=aligned,
        )  # fmt: skip
    if failure is None:
        return True
    if config.compile_loss == "on":
        raise PreconditionError(f"compile_loss on: {failure}", hint="leave compile_loss at auto")
    console.warn(f"the loss is not compiled, which is slower: {failure}")
    return False
