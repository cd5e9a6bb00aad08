"""A teacher as one model that can be called: whole in memory, of one device or of several, or block by block from the disk."""

from __future__ import annotations

from torch import nn

from distillkit.console import Console
from distillkit.device.precision import Compute
from distillkit.models.located import LocatedModel
from distillkit.run.pair import ModelPair
from distillkit.teachers.blocks import BlockwiseTeacher
from distillkit.teachers.choices import StreamingChoice
from distillkit.teachers.spread import place_teacher


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
        return place_teacher(pair, compute.teacher, compute, console, instead=located)
    console.info(f"the teacher is read from the disk block by block, for every batch: {streaming.why}")
    return BlockwiseTeacher(located, compute.teacher, compute.device).whole_model()
