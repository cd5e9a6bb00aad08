"""control: the same training without the teacher, from the same start on the same batches.

Writes control/: decision.json, checkpoints/, student/best, student/final, metrics.jsonl and metrics.json.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from distillkit.console import Console, format_duration
from distillkit.device.memory import explained_memory_errors
from distillkit.errors import PreconditionError
from distillkit.reports.early_stop import early_remark
from distillkit.run.context import TrainingContext
from distillkit.run.directory import RunDirectory
from distillkit.run.student_size import student_size
from distillkit.settings.parameters import Parameters
from distillkit.stages import StageResult
from distillkit.storage import explained_write_errors, files_below, remove_tree, write_json
from distillkit.training import checkpoints
from distillkit.training.arguments import total_steps
from distillkit.training.control import (
    ControlChoice,
    choose_control,
    control_config,
    control_fingerprint,
    early_choice,
    free_control_bytes,
    measured_cost,
    remember_control,
    settled_control,
)
from distillkit.training.disk import check_disk, student_disk_bytes
from distillkit.training.inputs import true_texts
from distillkit.training.readiness import provide_for_training
from distillkit.training.session import Training, TrainingPlace, train_student, without_cards
from distillkit.words import reworded


def extra_inputs(config: Parameters, run: RunDirectory) -> dict[str, str]:
    """Whether it is asked for: a run that decided against it makes it then. Once it is made, nothing more is asked."""
    settled, record = settled_control(config), run.record("control")
    asked = settled is not None and settled.on
    kept = record is not None and (not asked or record.metrics.get("made"))
    return {"asked for": record.inputs.get("asked for", "False") if record and kept else str(asked)}


def run(config: Parameters, run: RunDirectory, console: Console, *, from_scratch: bool = False) -> StageResult:
    """Decide whether a control is made, and train it, from the newest committed checkpoint if there is one."""
    if from_scratch:
        with explained_write_errors(run.control):
            remove_tree(run.control)
    choice = early_choice(config, run)
    if choice is not None and not choice.on:
        return _not_made(choice, console)
    provide_for_training(config, console)
    context = TrainingContext.open(control_config(config), run, console)
    rows, size = true_texts(context), student_size(context.pair)
    if choice is None:
        choice = choose_control(measured_cost(config, run, total_steps(context.config, len(rows)), size))
        remember_control(run, choice, console)
        if not choice.on:
            return _not_made(choice, console)

    place, fingerprint = TrainingPlace(run.control), control_fingerprint(config, run)
    try:
        checkpoint = _checkpoint(place, fingerprint, console)
        check_disk(place.folder, free_control_bytes(run.path), student_disk_bytes(context.config, size), cache=0)
        with explained_memory_errors():
            student = context.pair.load_student(console)
            training = Training(
                context, None, rows, place, checkpoint, fingerprint, label="control", start_score=_start_score(run)
            )
            figures = train_student(training, student)
    except PreconditionError as error:
        # What is damaged is the control's: the run itself need not begin anew.
        error.next_command = f"distillkit control --run {shlex.quote(str(run.path))} --force"
        error.hint = f"train the control anew: {error.next_command}"
        raise

    metrics = place.folder / "metrics.json"
    if config.save_metrics:
        write_json(metrics, figures)
    outputs = without_cards(files_below(place.student))
    outputs += [path for path in (metrics, place.metrics) if path.is_file()]
    train, best = figures["train"], figures["best"]
    summary = console.say(
        "summary.control", steps=f"{train['steps']:,}", time=format_duration(train["seconds"]),
        best=f"{best['bits_per_byte']:.4f}", at=best["step"],
    ) + early_remark(train, console.lang)  # fmt: skip
    return StageResult(outputs, {"made": True, "why": choice.why, **figures}, summary)


def _not_made(choice: ControlChoice, console: Console) -> StageResult:
    summary = console.say("summary.not_made", why=reworded(console.lang, choice.why))
    return StageResult([], {"made": False, "why": choice.why}, summary)


def _start_score(run: RunDirectory) -> float | None:
    """What the student scored before the run's own training, which is how this one begins."""
    record = run.record("distill")
    scores = record.metrics.get("held_out", []) if record is not None else []
    return next((float(score["bits_per_byte"]) for score in scores if score["step"] == 0), None)


def _checkpoint(place: TrainingPlace, fingerprint: str, console: Console) -> Path | None:
    """The checkpoint to continue from. One of another training goes: whoever changed that one has agreed to begin anew.

    Raises:
        PreconditionError: there are checkpoints of this control, and none of them is whole.
    """
    newest = checkpoints.newest(place.checkpoints)
    committed = checkpoints.read_commit(newest) if newest is not None else None
    if committed is not None and committed["fingerprint"] != fingerprint:
        console.info("the control that is here belongs to another training: it is made anew")
        for folder in (place.checkpoints, place.student):
            with explained_write_errors(folder):
                remove_tree(folder)
    return checkpoints.continue_from(place.checkpoints, fingerprint, console)
