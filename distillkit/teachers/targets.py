"""What a student learns from a teacher: its distributions in the student's tokens, over the ids that mean the same, or by the
alignment that is chosen.

Rows are indices into flattened [B·T] positions; row r predicts token r + 1. Each maker splits its work in two: `prepare`
is what follows from the batch alone and runs on the processor where batches are made; `soft_targets` is what needs the
teacher.
"""

from __future__ import annotations

from typing import Any

from distillkit import registry
from distillkit.data.text_encoder import TextEncoders
from distillkit.settings.parameters import Parameters
from distillkit.teachers.common_targets import common_tokens
from distillkit.teachers.protocol import Teacher


def teacher_signal(config: Parameters, encoders: TextEncoders, teacher: Teacher, *, paired: bool) -> Any:
    """What a student learns from `teacher`: the plain distributions over one vocabulary, or the alignment that the
    configuration names.

    Args:
        paired: whether rows are paired by an alignment (`TrainingContext.pairs_rows`).

    Returns:
        A `TargetMaker`; of an alignment with a loss of its own a `training.objectives.Objective`.
    """
    if not paired:
        return common_tokens(teacher, encoders)
    name = "bpm" if config.alignment == "auto" else config.alignment
    return registry.resolve(registry.ALIGNMENTS, name)(teacher, encoders, config)
