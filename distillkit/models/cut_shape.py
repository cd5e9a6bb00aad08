"""The size of a student that is cut from its teacher, from the teacher's configuration alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distillkit.models.references import ModelReference
from distillkit.models.shape import ModelShape, model_shape
from distillkit.models.width_shape import narrowed_config


def cut_shape(
    config: dict[str, Any], reference: ModelReference, layers: Sequence[int] | None = None
) -> ModelShape | None:
    """The shape of `teacher:…`; None where the configuration does not tell it.

    Args:
        config: the content of the teacher's config.json.
        reference: the student.
        layers: that it keeps, where they are known.

    Raises:
        UsageError: the teacher cannot be narrowed so.
    """
    if reference.automatic:
        return None
    shape = model_shape(config if reference.width is None else narrowed_config(config, reference.width))
    kept = layers or reference.layers
    return shape if shape is None or kept is None else shape.with_layers(kept)
