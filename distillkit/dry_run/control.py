"""Whether a planned run makes a control, asked of the functions that decide it in the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distillkit.run.directory import RunDirectory
from distillkit.run.student_size import StudentSize
from distillkit.settings.parameters import Parameters
from distillkit.storage import bytes_below, free_disk_bytes
from distillkit.training.control import ControlChoice, ControlCost, choose_control, early_choice, measured_cost
from distillkit.training.disk import finished_disk_bytes, student_disk_bytes

PHASE = "control"
# What the cost of a control is measured against, as the run measures it: stages and their phases.
COMPARED = {"prepare-data": ("prepare-data",), "distill": ("teacher pass", "student writing", "training")}


@dataclass(frozen=True)
class PlannedTraining:
    """What a control is beside.

    Attributes:
        folder: the run directory, which need not be there.
        stages: that would run.
        steps: optimizer steps of a control.
        size: of the student; None where it is not known.
        cache_bytes: what is still to be written of the teacher's cache.
    """

    folder: Path
    stages: list[str]
    steps: int
    size: StudentSize | None
    cache_bytes: int


def planned_control(
    config: Parameters, planned: PlannedTraining, phases: Mapping[str, float] | None
) -> ControlChoice | None:
    """What the run would choose.

    Args:
        phases: seconds of the phases of `COMPARED` and of `PHASE`; None where they are not known.

    Returns:
        None where the models are not here yet, or the run would not get to it.
    """
    there = (planned.folder / "manifest.json").exists()
    run = RunDirectory.open(planned.folder) if there else None
    early = early_choice(config, run)
    if early is not None and (not early.on or "control" in planned.stages):
        return early
    if "control" not in planned.stages or planned.size is None:
        return None
    if run is not None and "distill" not in planned.stages:
        return choose_control(measured_cost(config, run, planned.steps, planned.size))
    if phases is None:
        return None
    disk = student_disk_bytes(config, planned.size)
    held = bytes_below(planned.folder / "checkpoints") + bytes_below(planned.folder / "control")
    before = finished_disk_bytes(config, planned.size) + planned.cache_bytes
    free = free_disk_bytes(planned.folder) + held - before
    others = sum(phases.get(name, 0.0) for own in COMPARED.values() for name in own)
    return choose_control(ControlCost(phases[PHASE], others, disk, max(0, free)))
