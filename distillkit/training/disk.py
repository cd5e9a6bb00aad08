"""How much disk a training needs, and refusing to begin what cannot be finished."""

from __future__ import annotations

from pathlib import Path

from distillkit.console import format_bytes
from distillkit.errors import DistillkitError
from distillkit.run.student_size import StudentSize
from distillkit.settings.parameters import Parameters
from distillkit.storage import bytes_below
from distillkit.training.checkpoints import KEEP
from distillkit.training.tuned_teacher import TuningPlace

_WEIGHT_BYTES = 4  # Master weights and both moments are fp32.


def student_disk_bytes(config: Parameters, student: StudentSize) -> int:
    """What checkpoints and exported students take at most at one time.

    A checkpoint holds what is trained and two moments of it; one more than is kept exists while the next one is written. Students are
    written beside the ones that they replace.

    Args:
        student: its size.
    """
    checkpoints = 3 * (KEEP + 1) * student.trained
    students = (2 + (1 if config.save_best_model else 0)) * student.parameters
    return _WEIGHT_BYTES * (checkpoints + students)


def finished_disk_bytes(config: Parameters, student: StudentSize) -> int:
    """What a finished training leaves of that, on which its control comes on top."""
    students = (1 + (1 if config.save_best_model else 0)) * student.parameters
    return _WEIGHT_BYTES * (3 * KEEP * student.trained + students)


def replaced_bytes(run: Path, tunes: int) -> int:
    """Bytes on the disk that the training replaces: old checkpoints, and what was begun of the tuned teacher.

    Args:
        run: the run directory, which need not be there.
        tunes: parameters of a teacher that is still to be tuned.
    """
    begun = TuningPlace(run / "teacher")
    folders = [run / "checkpoints", *([begun.checkpoints, begun.tuned] if tunes else [])]
    return sum(map(bytes_below, folders))


def tuned_teacher_bytes(parameters: int) -> int:
    """What the tuned teacher takes when it is done.

    Args:
        parameters: of the teacher.
    """
    return _WEIGHT_BYTES * parameters


def tuning_disk_bytes(parameters: int) -> int:
    """What checkpoints and tuned teachers take at most at one time, while the teacher is tuned.

    Args:
        parameters: of the teacher.
    """
    return _WEIGHT_BYTES * parameters * (3 * (KEEP + 1) + 2)


def check_disk(place: Path, free: int, student: int, cache: int, tunes: int = 0) -> None:
    """Refuse what does not fit, before anything is computed.

    Args:
        place: the run directory, for the message.
        free: bytes that can be had there, old checkpoints counted.
        student: `student_disk_bytes`.
        cache: what is still to be written of the teacher's cache (`teachers.choices.cache_bytes`).
        tunes: parameters of a teacher that is still to be tuned.

    Raises:
        DistillkitError: it does not fit.
    """
    if free < tuning_disk_bytes(tunes):
        raise DistillkitError(
            f"{place}: {format_bytes(tuning_disk_bytes(tunes))} of disk are needed to tune the teacher, {format_bytes(free)} are free",
            hint="free some space, choose another --output-dir, or leave --tune-teacher out",
        )
    tuned = tuned_teacher_bytes(tunes)
    if free >= student + cache + tuned:
        return
    also = f" and {format_bytes(cache)} for the teacher's cache" if cache else ""
    also += f" and {format_bytes(tuned)} for the tuned teacher" if tuned else ""
    raise DistillkitError(
        f"{place}: {format_bytes(student)} of disk are needed for checkpoints and students{also}, {format_bytes(free)} are free",
        hint="free some space, or choose another --output-dir",
    )
