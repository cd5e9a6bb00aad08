"""A teacher as one model that can be called: whole in memory, or block by block from the disk."""

from __future__ import annotations

from torch import nn

from distillkit.console import Console
from distillkit.device.precision import Compute
from distillkit.models.located import LocatedModel
from distillkit.run.pair import ModelPair
from distillkit.teachers.blocks import BlockwiseTeacher
from distillkit.teachers.choices import StreamingChoice


def whole_teacher(
    pair: ModelPair, compute: Compute, streaming: StreamingChoice, console: Console, located: LocatedModel
) -> nn.Module:
    """The teacher, in eval mode.

    Args:
        located: the teacher of the pair, or what it has become.

    Raises:
        PreconditionError, UsageError: it cannot be loaded.
    """
    if not streaming.on:
        return pair.load_teacher(compute.teacher, console, instead=located).to(compute.device).eval()
    console.info(f"the teacher is read from the disk block by block, for every batch: {streaming.why}")
    return BlockwiseTeacher(located, compute.teacher, compute.device).whole_model()
