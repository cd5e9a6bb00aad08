"""How much disk a training needs, and refusing to begin what cannot be finished."""

from __future__ import annotations

from pathlib import Path

from distillkit.console import format_bytes
from distillkit.errors import DistillkitError
from distillkit.settings.parameters import Parameters
from distillkit.training.checkpoints import KEEP

_WEIGHT_BYTES = 4  # Master weights and both moments are fp32.


def student_disk_bytes(config: Parameters, parameters: int) -> int:
    """What checkpoints and exported students take at most at one time.

    A checkpoint holds the weights and two moments; one more than is kept exists while the next one is written. Students are
    written beside the ones that they replace.

    Args:
        parameters: of the student.
    """
    checkpoint_copies = 3 * (KEEP + 1)
    student_copies = 2 + (1 if config.save_best_model else 0)
    return _WEIGHT_BYTES * parameters * (checkpoint_copies + student_copies)


def finished_disk_bytes(config: Parameters, parameters: int) -> int:
    """What a finished training leaves of that, on which its control comes on top."""
    return _WEIGHT_BYTES * parameters * (3 * KEEP + 1 + (1 if config.save_best_model else 0))


def check_disk(place: Path, free: int, student: int, cache: int) -> None:
    """Refuse what does not fit, before anything is computed.

    Args:
        place: the run directory, for the message.
        free: bytes that can be had there, old checkpoints counted.
        student: `student_disk_bytes`.
        cache: what is still to be written of the teacher's cache (`teachers.choices.cache_bytes`).

    Raises:
        DistillkitError: it does not fit.
    """
    if free >= student + cache:
        return
    also = f" and {format_bytes(cache)} for the teacher's cache" if cache else ""
    raise DistillkitError(
        f"{place}: {format_bytes(student)} of disk are needed for checkpoints and students{also}, {format_bytes(free)} are free",
        hint="free some space, or choose another --output-dir",
    )
