"""The control: the run's own training without its teacher. What it is, whether it is made, and what it belongs to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from distillkit.console import Console, format_bytes, format_duration
from distillkit.errors import PreconditionError
from distillkit.run.directory import RunDirectory
from distillkit.run.student_size import StudentSize
from distillkit.settings import declared
from distillkit.settings.conditions import needs_control
from distillkit.settings.parameters import Parameters
from distillkit.storage import (
    bytes_below,
    fingerprint_of,
    free_disk_bytes,
    make_folder,
    read_json,
    with_checksum,
    without_checksum,
    write_json,
)
from distillkit.training.disk import student_disk_bytes

# The parameters of the training that only say what is learned from the teacher, and how it is had: another value of one of
# them makes another student, but the same control.
TEACHERS_PART = (
    "teacher_weights", "temperature", "alpha", "beta", "tune_teacher", "temperature_schedule", "alpha_schedule", "alignment",
    "prefix_map", "divergence", "divergence_mix", "ab_alpha", "ab_beta", "teacher_cache", "sparse_method", "sparse_size",
    "teacher_streaming", "teacher_precision", "answers", "teacher_temperature", "teacher_top_p", "refusals", "cut_answers",
    "keep_answers", "on_policy_fraction", "on_policy_max_new_tokens", "on_policy_temperature", "replay_buffer",
    "replay_fraction",
)  # fmt: skip


def control_config(config: Parameters) -> Parameters:
    """The configuration of the control: alpha 0, and nothing that says how the teacher is used."""
    plain = {name: declared.default(name) for name in TEACHERS_PART}
    return dataclasses.replace(config, **{**plain, "alpha": 0.0, "beta": 1.0})


def control_fingerprint(config: Parameters, run: RunDirectory) -> str:
    """What the checkpoints of a control belong to: the prepared data, and every parameter of its own training but those that
    may grow, the number of epochs or steps, and those at their defaults, of which a later version may have more."""
    own = dataclasses.asdict(control_config(config))
    affecting = [name for name in declared.fields() if declared.facts(name).affects == "distill"]
    names = [name for name in affecting if not declared.facts(name).may_grow and own[name] != declared.default(name)]
    return fingerprint_of({"data": run.result_fingerprint("prepare-data"), **{name: own[name] for name in names}})


# --- whether it is made ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ControlChoice:
    """Whether a control is made, and why."""

    on: bool
    why: str


@dataclass(frozen=True)
class ControlCost:
    """What a control takes beside its run.

    Attributes:
        seconds: of the control.
        others: seconds of preparing the data, and of the training with its teacher.
        disk: bytes that the control needs.
        free: bytes that are there for it, when the training has what it needs.
    """

    seconds: float
    others: float
    disk: int
    free: int


def settled_control(config: Parameters) -> ControlChoice | None:
    """What the configuration alone says; None where it is left to the program."""
    if config.alpha == 0:
        return ControlChoice(False, "alpha is 0: the training without the teacher is the run itself")
    if config.control is not None:
        return ControlChoice(config.control, "--control" if config.control else "--no-control")
    if needs_control(vars(config)):
        return ControlChoice(True, "the quality gate compares the student with it")
    if config.skip_validation:
        return ControlChoice(False, "nothing would compare it with the student: --skip-validation")
    return None


def early_choice(config: Parameters, run: RunDirectory | None) -> ControlChoice | None:
    """What can be said before anything is measured; None where it depends on what a control costs.

    Args:
        run: None for a new one.

    Raises:
        PreconditionError: the note of an earlier choice is damaged.
    """
    settled = settled_control(config)
    if settled is not None or run is None:
        return settled
    remembered = remembered_control(run)
    if remembered is None and run.holds("validate"):
        # A finished run, of an earlier version perhaps, does not begin to train because it is asked for its result.
        return ControlChoice(
            False, f"the run has its verdict; it can be made later: distillkit control --run {run.path}"
        )
    return remembered


def choose_control(cost: ControlCost) -> ControlChoice:
    """The choice of `auto`: a control is made where it is less than half of the whole run, itself included."""
    if cost.free < cost.disk:
        return ControlChoice(False, f"it needs {format_bytes(cost.disk)} of disk, {format_bytes(cost.free)} are free")
    share = f"it takes about {format_duration(cost.seconds)} of {format_duration(cost.seconds + cost.others)}"
    if cost.seconds >= cost.others:
        return ControlChoice(False, f"{share}, half of the whole run or more; --control makes it all the same")
    return ControlChoice(True, f"{share}, less than half of the whole run")


def measured_cost(config: Parameters, run: RunDirectory, steps: int, student: StudentSize) -> ControlCost:
    """What a control would take, from what the complete training has taken.

    Args:
        steps: optimizer steps of the control.
        student: its size.
    """
    records = {stage: run.record(stage) for stage in ("prepare-data", "distill")}
    prepared, trained = (record.metrics if record is not None else {} for record in records.values())
    train = trained["train"]
    live = trained.get("decisions", {}).get("teacher_cache") == "off"
    teacher = trained["teacher_pass"]["seconds"] if live else 0.0
    own = trained.get("on_policy", {})
    teacher += own.get("seconds", 0.0) + own.get("teacher_seconds", 0.0)
    return ControlCost(
        # Without the teacher's passes between the steps, and the texts that the student writes. Black box has other texts, and
        # with them another number of steps.
        seconds=max(0.0, train["seconds"] - teacher) * steps / max(1, train["steps"]),
        # The stage counts its last attempt, the training all of them.
        others=prepared.get("seconds", 0.0) + max(trained.get("seconds", 0.0), train["seconds"]),
        disk=student_disk_bytes(config, student),
        free=free_control_bytes(run.path),
    )


def free_control_bytes(folder: Path) -> int:
    """Bytes that a control can have in the run directory: what is free, and what an earlier attempt of it holds."""
    return free_disk_bytes(folder) + bytes_below(folder / "control")


# --- the choice of auto is kept --------------------------------------------------------------------------------------


def _note(run: RunDirectory) -> Path:
    return run.control / "decision.json"


def remembered_control(run: RunDirectory) -> ControlChoice | None:
    """What `auto` chose when this run came to its control; None where it has not.

    Raises:
        PreconditionError: the note is damaged.
    """
    note = _note(run)
    if not note.exists():
        return None
    try:
        noted = without_checksum(read_json(note))
        return ControlChoice(bool(noted["made"]), str(noted["why"]))
    except (OSError, ValueError, KeyError) as error:
        raise PreconditionError(
            f"{note} is damaged: {error}", hint=f"decide again: distillkit control --run {run.path}, or --no-control"
        ) from error


def remember_control(run: RunDirectory, choice: ControlChoice, console: Console) -> None:
    """Note what `auto` chose, so that a run that goes on does not choose otherwise."""
    make_folder(run.control)
    write_json(_note(run), with_checksum({"made": choice.on, "why": choice.why}))
    console.info(f"control: {'made' if choice.on else 'not made'}: {choice.why}")
