"""Whether the element-wise part of a training's loss is compiled, and compiling it before the training begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from distillkit.errors import PreconditionError
from distillkit.losses.kernels import WORTH_COMPILING, compile_failure, compiler_available, forward_kl_rows
from distillkit.run.context import TrainingContext, needs_teacher
from distillkit.settings.parameters import Parameters
from distillkit.training.objectives import soft_loss


@dataclass(frozen=True)
class CompileChoice:
    """Whether the loss is compiled, and why."""

    on: bool
    why: str


def choose_compile(config: Parameters, device: torch.device, logits: int) -> CompileChoice:
    """What `config.compile_loss` comes to. By the amount of work alone, so that a resumed run decides as the first one did.

    Args:
        logits: numbers that the student's head gives in the whole training.

    Raises:
        PreconditionError: it was asked for and there is no compiler.
    """
    if config.compile_loss == "off":
        return CompileChoice(False, "as compile_loss says")
    if not compiler_available(device):
        if config.compile_loss == "on":
            raise PreconditionError(
                f"compile_loss on: there is no compiler for {device.type}",
                hint="install g++ (on a GPU: triton), or leave compile_loss at auto",
            )
        return CompileChoice(False, f"there is no compiler for {device.type}")
    if config.compile_loss == "on":
        return CompileChoice(True, "as compile_loss says")
    worth = logits >= WORTH_COMPILING
    return CompileChoice(worth, f"{logits:,} logits, compiling is worth it from {WORTH_COMPILING:,}")


def compile_loss(context: TrainingContext, logits: int) -> bool:
    """Compile the loss of a training if `choose_compile` says so; whether it is compiled now.

    Args:
        logits: as of `choose_compile`.

    Raises:
        PreconditionError: it was asked for and is not possible.
    """
    config, compute, console = context.config, context.compute, context.console
    if not choose_compile(config, compute.device, logits).on:
        return False
    loss = soft_loss(config)
    soft = config.box_type == "white" and needs_teacher(config) and loss.is_forward_kl
    with console.progress("compiling the loss", unit="s"):
        failure = compile_failure(
            forward_kl_rows if soft else None, compute.device, compute.autocast or torch.float32,
            tempered=loss.tempered, plain=context.pairs_rows and config.extra_teachers is None,
        )  # fmt: skip
    if failure is None:
        return True
    if config.compile_loss == "on":
        raise PreconditionError(f"compile_loss on: {failure}", hint="leave compile_loss at auto")
    console.warn(f"the loss is not compiled, which is slower: {failure}")
    return False
