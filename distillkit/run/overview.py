"""A run in a few figures, for lists of runs: state, size, time, models, what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillkit.errors import PreconditionError
from distillkit.run.directory import RunDirectory
from distillkit.run.results import DistillResult, read_result
from distillkit.settings import declared
from distillkit.settings.paths import short_reference
from distillkit.storage import bytes_below


@dataclass(frozen=True)
class RunOverview:
    """What a list of runs says of one.

    Attributes:
        folder: where it lies.
        status: of its training: "complete", "running" (also where it was cut off), "failed", "not trained"; "unreadable" where
            its manifest or results cannot be read.
        disk_bytes: what its files take.
        error: why it cannot be read.
        run, result: None where it cannot be read.
    """

    folder: Path
    status: str
    disk_bytes: int
    error: str = ""
    run: RunDirectory | None = None
    result: DistillResult | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> RunOverview:
        """Read a run as far as it can be read."""
        size = bytes_below(folder)
        try:
            run = RunDirectory.open(folder)
            result = read_result(run)
        except PreconditionError as error:
            return cls(folder, "unreadable", size, error.message)
        record = run.record("distill")
        status = record.status if record else "not trained"
        return cls(folder, status, size, run=run, result=result, config=run.manifest.config)

    @property
    def seconds(self) -> float | None:
        """What its stages took together, as far as it was recorded."""
        known = self.stage_seconds.values()
        return sum(known) if known else None

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Stage to what it took; where it stopped and went on, all attempts but those that were killed."""
        stages = self.run.manifest.stages if self.run else {}
        return {
            name: float(record.metrics["seconds"])
            for name, record in stages.items()
            if record.metrics.get("seconds") is not None
        }

    def model(self, role: str) -> str | None:
        """The teacher or student as it was given: a path, else a name."""
        return self.config.get(f"{role}_model_path") or self.config.get(f"{role}_model")

    @property
    def teacher_share(self) -> float | None:
        """What of the gain is the teacher's, bits per byte; None without a control."""
        gain = self.result.teacher_gain if self.result else None
        return None if gain is None else gain.get("bits_per_byte")

    @property
    def short_teacher(self) -> str:
        """The telling part of the teacher's name."""
        teacher = self.model("teacher")
        return "" if teacher is None else short_reference(teacher)

    def changed_settings(self) -> dict[str, Any]:
        """Parameters that are not the defaults, where the run lies left out."""
        left_out = set(declared.location_names())
        return {
            name: self.config[name]
            for name in declared.fields()
            if name in self.config and name not in left_out and self.config[name] != declared.default(name)
        }

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        about = {
            "run": str(self.folder),
            "name": self.folder.name,
            "status": self.status,
            "disk_bytes": self.disk_bytes,
        }
        if self.run is None or self.result is None:
            return {**about, "error": self.error}
        return {
            **about,
            "created": self.run.manifest.created,
            "seconds": self.seconds,
            "teacher_model": self.model("teacher"),
            "student_model": self.model("student"),
            "teacher_share": self.teacher_share,
            **self.result.as_dict(),
        }
