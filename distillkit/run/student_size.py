"""How large a student is, and how much of it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from distillkit.models.cut_shape import cut_shape
from distillkit.models.model_files import read_config, weight_files
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.models.shape import ModelShape, model_shape
from distillkit.run.pair import ModelPair
from distillkit.settings.parameters import Parameters


@dataclass(frozen=True)
class StudentSize:
    """Attributes:
    parameters: numbers in all weights, tied ones once.
    trained: those for which there are gradients and moments: all, or an adapter's.
    """

    parameters: int
    trained: int

    @classmethod
    def of(cls, config: Parameters, shape: ModelShape) -> StudentSize:
        """Of a student whose shape is known."""
        return cls(shape.parameters, trained_numbers(config, shape))


def trained_numbers(config: Parameters, shape: ModelShape) -> int:
    """How many numbers a training changes."""
    return shape.parameters if config.adapter == "none" else config.lora_rank * shape.adapter_widths


def student_size(pair: ModelPair) -> StudentSize:
    """The student of a run, without reading its weights where its configuration tells."""
    reference = pair.student.reference
    folder = pair.start or pair.student.folder
    cut = pair.start is None and reference.kind == "pruned-teacher"
    shape = cut_shape(read_config(folder), reference, pair.layers) if cut else model_shape(read_config(folder))
    if shape is not None:
        return StudentSize.of(pair.config, shape)
    numbers = StoredWeights(list(weight_files(folder))).numbers
    # Of an adapter nothing is known without the model: at most so many.
    return StudentSize(numbers, numbers)
