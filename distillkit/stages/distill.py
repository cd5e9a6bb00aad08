"""distill: the teacher's part, then the student's training, then the best and the final student.

Writes checkpoints/, student/best, student/final, metrics.jsonl and metrics.json; for black box teacher/generated.jsonl, with
rules for answers teacher/answers.jsonl; with `--tune-teacher` teacher/tuned.
"""

from __future__ import annotations

import json
from pathlib import Path

from distillkit.console import Console, format_duration
from distillkit.device.memory import explained_memory_errors
from distillkit.processes.taking_part import process_count
from distillkit.reports.early_stop import early_remark
from distillkit.run.context import TrainingContext
from distillkit.run.directory import RunDirectory
from distillkit.settings import declared
from distillkit.settings.conditions import teacher_writes
from distillkit.settings.parameters import Parameters
from distillkit.stages import StageResult
from distillkit.storage import explained_write_errors, files_below, fingerprint_of, remove_tree, write_json
from distillkit.teachers.generated_file import WRITTEN, settings_path_of
from distillkit.teachers.judged_file import JUDGED, learnt_counts
from distillkit.teachers.served_texts import served_cost
from distillkit.training import checkpoints
from distillkit.training.decisions import TeacherChoice, check_processes, tunes_teacher
from distillkit.training.inputs import decide, teacher_part
from distillkit.training.mixed_teachers import choices_of
from distillkit.training.readiness import provide_for_training
from distillkit.training.session import Training, TrainingPlace, train_student, without_cards
from distillkit.training.teacher_tuning import FORMAT
from distillkit.training.tuned_teacher import TuningPlace, forget_teacher


def extra_inputs(config: Parameters, run: RunDirectory) -> dict[str, str]:
    """Inputs besides the parameters: another way of tuning the teacher makes another student."""
    return {"teacher tuning": str(FORMAT)} if tunes_teacher(config) else {}


def run(config: Parameters, run: RunDirectory, console: Console, *, from_scratch: bool = False) -> StageResult:
    """Train the student, from the newest committed checkpoint if there is one."""
    if from_scratch:
        for folder in (run.checkpoints, run.student):
            with explained_write_errors(folder):
                remove_tree(folder)
        forget_teacher(run, keep_tuned=tunes_teacher(config))
    fingerprint = checkpoint_fingerprint(config, run)
    checkpoint = checkpoints.continue_from(run.checkpoints, fingerprint, console)

    check_processes(config, process_count())
    provide_for_training(config, console)
    context = TrainingContext.open(config, run, console)
    with explained_memory_errors():
        decided = decide(context)
        rows, source = teacher_part(context, decided)
        student = context.pair.load_student(console)
        choice = None
        if decided.teacher is not None:
            cache = decided.teacher.cache
            choice = TeacherChoice(
                cache.mode, cache.why, context.pair.teacher.fingerprint(), choices_of(decided.others)
            )
        training = Training(context, source, rows, TrainingPlace(run.path), checkpoint, fingerprint, choice)
        figures = train_student(training, student)
    if decided.teacher is not None:
        streaming, cache = decided.teacher.streaming, decided.teacher.cache
        figures["decisions"]["teacher_cache"] = cache.mode
        figures["decisions"]["teacher_streaming"] = "on" if streaming.on else "off"
        for number, (_, other) in enumerate(decided.others, 2):
            figures["decisions"][f"teacher_{number}_cache"] = other.cache.mode
            figures["decisions"][f"teacher_{number}_streaming"] = "on" if other.streaming.on else "off"

    if decided.tuning is not None and (tuned := decided.tuning.done()) is not None:
        figures["teacher_tuning"] = tuned.figures

    if teacher_writes(vars(config)) and (counts := learnt_counts(run.teacher)) is not None:
        figures["teacher_texts"] = counts

    if context.pair.teacher.is_served and (run.teacher / WRITTEN).is_file():
        figures["teacher_server"] = served_cost(run.teacher / WRITTEN)

    if config.save_metrics:
        write_json(run.path / "metrics.json", figures)
    outputs = without_cards(files_below(run.student))
    outputs += [path for path in _recorded(run) if path.is_file()]
    train, best = figures["train"], figures["best"]
    summary = console.say(
        "summary.distill", steps=f"{train['steps']:,}", tokens=f"{train['tokens']:,}", time=format_duration(train["seconds"]),
        speed=f"{train['tokens_per_second']:,.0f}", best=f"{best['bits_per_byte']:.4f}", at=best["step"],
    ) + early_remark(train, console.lang)  # fmt: skip
    if (own := figures.get("on_policy")) is not None:
        summary += console.say(
            "summary.on_policy", steps=f"{own['steps']:,}", tokens=f"{own['sampled_tokens']:,}",
            time=format_duration(own["seconds"]),
        )  # fmt: skip
    if (cost := figures.get("teacher_server")) is not None:
        summary += console.say(
            "summary.server", read=f"{cost['prompt_tokens']:,}", written=f"{cost['completion_tokens']:,}",
            requests=f"{cost['requests']:,}",
        )  # fmt: skip
    return StageResult(outputs, figures, summary)


def _recorded(run: RunDirectory) -> list[Path]:
    """What the manifest records besides the students, where it is written."""
    texts = [run.teacher / name for name in (WRITTEN, JUDGED)]
    writing = [path for text in texts for path in (text, settings_path_of(text))]
    return [run.path / "metrics.json", run.path / "metrics.jsonl", *writing, *TuningPlace.of(run).files()]


def checkpoint_fingerprint(config: Parameters, run: RunDirectory) -> str:
    """What a checkpoint belongs to: every input of this stage but the number of epochs or steps, which may grow.

    Parameters at their defaults are left out, so that checkpoints stay those of their run when a later version has more.
    """
    record = run.record("distill")
    inputs = dict(record.inputs) if record else {}
    usual = {name: json.dumps(declared.default(name), sort_keys=True) for name in declared.fields()}
    growing = {name for name in usual if declared.facts(name).may_grow}
    return fingerprint_of(
        {name: value for name, value in inputs.items() if name not in growing and value != usual.get(name)}
    )
