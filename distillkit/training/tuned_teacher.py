"""What `--tune-teacher` leaves in a run: the tuned teacher, and the record without which it does not count.

teacher/tuned/         the tuned teacher, weights in fp32, as a model folder
teacher/tuned.json     what it was made from, what it came to, its files; written last
teacher/checkpoints/   while it is being tuned
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.errors import PreconditionError
from distillkit.models.located import LocatedModel
from distillkit.models.references import ModelReference
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import ModelPair
from distillkit.storage import (
    explained_write_errors,
    file_records,
    files_below,
    read_json,
    records_problem,
    remove_tree,
    with_checksum,
    without_checksum,
    write_json,
)


@dataclass(frozen=True)
class TuningPlace:
    """Where a run keeps its tuned teacher.

    Attributes:
        root: the folder of the run's teacher.
    """

    root: Path

    @classmethod
    def of(cls, run: RunDirectory) -> TuningPlace:
        return cls(run.teacher)

    @property
    def tuned(self) -> Path:
        return self.root / "tuned"

    @property
    def record(self) -> Path:
        return self.root / "tuned.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def files(self) -> list[Path]:
        """What the manifest of the run records; [] where no teacher was tuned."""
        return [self.record, *files_below(self.tuned)] if self.record.is_file() else []


@dataclass(frozen=True)
class TunedTeacher:
    """A tuning that is complete.

    Attributes:
        fingerprint: of the teacher that teaches now: of the tuned files, or that of the teacher as it came.
        figures: for metrics.json: `steps`, `tokens`, `seconds`, `tokens_per_second`, the `best_step` (0: the teacher as it
            came) and bits per byte of the validation part `before` and at that step (`after`).
        located: the tuned teacher; None where the teacher as it came was the best, and teaches.
    """

    fingerprint: str
    figures: dict[str, Any]
    located: LocatedModel | None


def located_tuned(pair: ModelPair, folder: Path) -> LocatedModel:
    """The tuned teacher, under the name of the teacher that it was."""
    reference = ModelReference("folder", f"{pair.teacher.reference.text} (tuned)", path=folder)
    return LocatedModel(reference, folder, options=pair.teacher.options)


def write_record(place: TuningPlace, pair: ModelPair, key: str, figures: dict[str, Any]) -> TunedTeacher:
    """Make a tuning count.

    Args:
        key: everything that the tuned teacher depends on.

    Raises:
        DistillkitError: it cannot be written.
    """
    is_better = figures["best_step"] > 0
    tuned = located_tuned(pair, place.tuned) if is_better else None
    fingerprint = (tuned or pair.teacher).fingerprint()
    files = file_records(place.root, files_below(place.tuned)) if is_better else []
    content = {"key": key, "fingerprint": fingerprint, "figures": figures, "files": files}
    write_json(place.record, with_checksum(content))
    return TunedTeacher(fingerprint, figures, tuned)


def read_record(place: TuningPlace, pair: ModelPair, key: str, *, prove: bool = True) -> TunedTeacher | None:
    """The tuned teacher of a run; None where there is none yet, or one that was made from something else.

    Args:
        prove: whether its files are compared with what was written, which reads them all.

    Raises:
        PreconditionError: the record or the files are not as they were written.
    """
    if not place.record.is_file():
        return None
    try:
        content = without_checksum(read_json(place.record))
        recorded, fingerprint = str(content["key"]), str(content["fingerprint"])
        figures, files = dict(content["figures"]), list(content["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(place.record, str(error)) from error
    if recorded != key:
        return None
    if prove and (problem := records_problem(place.root, files)) is not None:
        raise _damaged(place.tuned, problem)
    return TunedTeacher(fingerprint, figures, located_tuned(pair, place.tuned) if files else None)


def _damaged(path: Path, problem: str) -> PreconditionError:
    return PreconditionError(f"{path} is damaged: {problem}", hint="tune the teacher anew with --force")


def tuned_model(pair: ModelPair, run: RunDirectory) -> LocatedModel | None:
    """The tuned teacher of a run whose training is complete; None where the teacher taught as it came."""
    folder = TuningPlace.of(run).tuned
    return located_tuned(pair, folder) if folder in {path.parent for path in TuningPlace.of(run).files()} else None


def forget_teacher(run: RunDirectory, *, keep_tuned: bool) -> None:
    """Delete what a run has of its teacher, for a new start.

    Args:
        keep_tuned: whether a tuned teacher that is whole stays, as the teacher cache does: it is used again if the new start
            asks for the same.

    Raises:
        DistillkitError: it cannot be deleted.
    """
    place = TuningPlace.of(run)
    try:
        content = without_checksum(read_json(place.record))
        whole = records_problem(place.root, content["files"]) is None
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    kept = (place.tuned, place.record) if whole and keep_tuned else ()
    with explained_write_errors(place.root):
        for path in sorted(place.root.iterdir()) if place.root.is_dir() else []:
            if path in kept:
                continue
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink()
