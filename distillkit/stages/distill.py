"""distill: the teacher's part, then the student's training, then the best and the final student.

Writes checkpoints/, student/best, student/final, metrics.jsonl and metrics.json; for black box teacher/generated.jsonl.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import set_seed

from distillkit.console import Console, format_duration
from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import load_examples
from distillkit.data.training_rows import Row, true_rows, white_box_rows
from distillkit.device.memory import explained_memory_errors, peak_memory_bytes
from distillkit.errors import DistillkitError, Interrupted, PreconditionError
from distillkit.evaluation.batched_forward import head_width
from distillkit.evaluation.bits_per_byte import score
from distillkit.evaluation.held_out import scored_texts
from distillkit.interrupts import check_interrupted, pending
from distillkit.run.context import TrainingContext, needs_teacher
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import student_parameters
from distillkit.settings.parameters import Parameters
from distillkit.silence_libraries import silence_transformers
from distillkit.stages import StageResult
from distillkit.storage import (
    explained_write_errors,
    file_records,
    files_below,
    fingerprint_of,
    free_disk_bytes,
    make_folder,
    records_problem,
    remove_tree,
    write_json,
)
from distillkit.teachers.black_box import generated_rows
from distillkit.teachers.loader import TeacherLoader
from distillkit.teachers.protocol import TeacherSource
from distillkit.teachers.sources import open_source, remember_choice, remembered_choice
from distillkit.training import checkpoints
from distillkit.training.arguments import total_steps, training_arguments
from distillkit.training.compiling import compile_loss
from distillkit.training.decisions import TeacherDecision, decide_disk, decide_teacher, uses_white_box_teacher
from distillkit.training.export import export_student
from distillkit.training.metrics_log import MetricsLog
from distillkit.training.objectives import training_objective
from distillkit.training.trainer import DistillTrainer, Progress


def run(config: Parameters, run: RunDirectory, console: Console, *, from_scratch: bool = False) -> StageResult:
    """Train the student, from the newest committed checkpoint if there is one."""
    if from_scratch:
        for folder in (run.checkpoints, run.student, run.teacher):
            with explained_write_errors(folder):
                remove_tree(folder)
    fingerprint = checkpoint_fingerprint(config, run)
    search = checkpoints.newest_valid(run.checkpoints, fingerprint)
    for words in search.passed_over:
        console.warn(f"ignored checkpoint {words}")
    if search.path is not None:
        checkpoints.prune(run.checkpoints, newest=search.path)  # An earlier attempt may have been killed while it did.

    context = TrainingContext.open(config, run, console)
    with explained_memory_errors():
        decided = decide(context)
        rows, source = _teacher_part(context, decided)
        student = context.pair.load_student(console)
        figures = _train(context, student, source, rows, search.path, fingerprint)
    if decided.teacher is not None:
        streaming, cache = decided.teacher.streaming, decided.teacher.cache
        figures["decisions"]["teacher_cache"] = cache.mode
        figures["decisions"]["teacher_streaming"] = "on" if streaming.on else "off"

    if config.save_metrics:
        write_json(run.path / "metrics.json", figures)
    outputs = _without_cards(files_below(run.student))
    outputs += [path for path in _recorded(run) if path.is_file()]
    train, best = figures["train"], figures["best"]
    summary = (
        f"{train['steps']:,} steps, {train['tokens']:,} tokens in {format_duration(train['seconds'])} "
        f"({train['tokens_per_second']:,.0f} tokens/s); best held-out score {best['bits_per_byte']:.4f} bits per byte at step {best['step']}"
    )
    return StageResult(outputs, figures, summary)


def _recorded(run: RunDirectory) -> list[Path]:
    """What the manifest records besides the students, where it is written."""
    writing = [run.teacher / name for name in ("generated.jsonl", "generated.settings.json")]
    return [run.path / "metrics.json", run.path / "metrics.jsonl", *writing]


def checkpoint_fingerprint(config: Parameters, run: RunDirectory) -> str:
    """What a checkpoint belongs to: every input of this stage but the number of epochs, which may grow."""
    record = run.record("distill")
    inputs = dict(record.inputs) if record else {}
    return fingerprint_of({name: value for name, value in inputs.items() if name != "epochs"})


# --- the teacher's part ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decided:
    """What is decided before anything large is loaded.

    Attributes:
        rows: the texts of the data set, as they are trained on; none where only the teacher's are.
        loader: of a white-box teacher; None where the teacher's distributions have no part.
        teacher: how that teacher is had; None likewise.
    """

    rows: list[Row]
    loader: TeacherLoader | None = None
    teacher: TeacherDecision | None = None


def decide(context: TrainingContext) -> Decided:
    """Decide how the teacher is had, and refuse to begin what cannot be finished.

    Raises:
        DistillkitError: the disk is too small.
        PreconditionError, UsageError: what was asked for is not possible with this teacher.
    """
    config, same = context.config, bool(context.pair.same_tokenizer)
    stored = load_examples(context.run.data / "train")
    first_target = 0 if context.encoders.student.start_id is None else 1
    if uses_white_box_teacher(config):
        rows = white_box_rows(
            stored, first_target=first_target, identical=same and context.pairs_rows,
            start_shift=context.encoders.start_shift,
        )  # fmt: skip
        loader = TeacherLoader(context, rows)
        decision = decide_teacher(config, loader.facts(), remembered_choice(_cache_note(context)))
        loader.streaming = decision.streaming
        _check_disk(context, decision)
        return Decided(rows, loader, decision)
    _check_disk(context, None)
    if config.box_type == "black" and config.beta == 0:
        return Decided([])
    return Decided(true_rows(stored, first_target=first_target))


def _cache_note(context: TrainingContext) -> Path:
    """Where `auto` notes which cache it chose, so that a run that resumes does not choose otherwise."""
    return context.run.teacher / "cache.json"


def _teacher_part(context: TrainingContext, decided: Decided) -> tuple[list[Row], TeacherSource | None]:
    """The rows to train on, and in white box the source of the teacher's targets."""
    config, console = context.config, context.console
    if decided.loader is not None and decided.teacher is not None:
        if config.teacher_cache == "auto":
            remember_choice(_cache_note(context), decided.teacher.cache, console)
        return decided.rows, open_source(context, decided.loader, decided.teacher.cache)
    if config.box_type == "white":
        console.info("alpha is 0: the teacher is not needed, this is plain fine-tuning")
        return decided.rows, None
    if not needs_teacher(config):
        console.info("alpha is 0: the teacher does not write anything, this is plain fine-tuning")
        return decided.rows, None
    return decided.rows + generated_rows(context, load_examples(context.run.data / "train")), None


def _check_disk(context: TrainingContext, decision: TeacherDecision | None) -> None:
    """Refuse to begin what cannot be finished."""
    run = context.run
    existing = sum(path.stat().st_size for path in files_below(run.checkpoints)) if run.checkpoints.is_dir() else 0
    free = free_disk_bytes(run.path) + existing
    decide_disk(context.config, run.path, free, student_parameters(context.pair), decision)


def _hint(context: TrainingContext, source: TeacherSource | None) -> None:
    """What the experiment in benchmarks/cross_tokenizer found; the defaults stay what they are."""
    config = context.config
    if source is None or context.pair.same_tokenizer or config.temperature <= 1:
        return
    if config.alignment in ("auto", "bpm"):
        context.console.info(
            "hint: across tokenizers temperature 1 made better students in our measurements (docs/cross-tokenizer.md): "
            "--temperature 1 --alpha 0.5, or --preset tuned"
        )


# --- training --------------------------------------------------------------------------------------------------------


def _train(
    context: TrainingContext,
    student: nn.Module,
    source: TeacherSource | None,
    rows: Sequence[Row],
    checkpoint: Path | None,
    fingerprint: str,
) -> dict[str, Any]:
    config, run, compute, console = context.config, context.run, context.compute, context.console
    objective = training_objective(context, source)
    _hint(context, source)
    progress = Progress.load(checkpoint) if checkpoint else Progress()
    resumed_step = int(checkpoint.name.removeprefix("step-")) if checkpoint else 0
    log = MetricsLog(run.path / "metrics.jsonl" if config.save_metrics else None, resumed_step)
    set_seed(config.seed)
    make_folder(run.checkpoints)
    steps = total_steps(config, len(rows))
    if checkpoint:
        console.info(f"continuing from step {resumed_step} of {steps}")
    lengths = [len(row["student_ids"]) for row in rows]
    compiled = compile_loss(context, sum(lengths) * head_width(student) * config.epochs)
    with console.progress("training", total=steps, unit="steps", completed=resumed_step) as display:
        trainer = DistillTrainer(
            model=student,
            args=training_arguments(config, compute, run.checkpoints, len(rows), resumed=checkpoint is not None),
            train_dataset=_Rows(rows),
            eval_dataset=_Rows(()),  # `evaluate` scores the validation part itself; the Trainer only asks for one
            data_collator=DistillationCollator(
                white_box=source is not None,
                aligned=source is not None and source.pairs_rows and context.pairs_rows,
                prepare=objective.prepare,
            ),
            objective=objective,
            alpha=config.alpha,
            beta=config.beta,
            schedule=config.lr_schedule,
            lengths=lengths,
            held_out_score=_held_out_score(context),
            fingerprint=fingerprint,
            on_best=_keep_best(context) if config.save_best_model else None,
            metrics_log=log,
            progress=progress,
            display=display,
            teacher=source,
            compile_kernels=compiled,
        )
        with silence_transformers():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    number = pending()
    if number is not None and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(number, f"stopped after step {trainer.state.global_step} of {steps}; it is saved")
    _check_best(run, progress)
    final = trainer.accelerator.unwrap_model(trainer.model)
    export_student(run.student / "final", final, context.pair, config, run)
    check_interrupted()
    return _figures(trainer, source)


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Examples in memory; token lists are small beside the models."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def _held_out_score(context: TrainingContext) -> Callable[[nn.Module], float]:
    """Bits per byte of the validation part. Not interruptible: a step that is scored is also saved."""
    compute = context.compute
    texts = scored_texts(load_examples(context.run.data / "validation"), context.encoders.student, "student")

    def held_out(model: nn.Module) -> float:
        value = score(
            model, texts, device=compute.device, autocast_dtype=compute.autocast, interruptible=False
        ).bits_per_byte
        if not math.isfinite(value):
            raise DistillkitError(f"the held-out score became {value}", hint="lower --learning-rate")
        return value

    return held_out


def _keep_best(context: TrainingContext) -> Callable[[nn.Module], list[dict[str, Any]]]:
    run = context.run

    def keep(model: nn.Module) -> list[dict[str, Any]]:
        export_student(run.student / "best", model, context.pair, context.config, run)
        return file_records(run.path, _without_cards(files_below(run.student / "best")))

    return keep


def _without_cards(paths: Sequence[Path]) -> list[Path]:
    """`validate` writes its figures into the cards."""
    return [path for path in paths if path.name != "README.md"]


def _check_best(run: RunDirectory, progress: Progress) -> None:
    """Refuse to offer another student than the one that was the best.

    Raises:
        PreconditionError: its files are not those that were exported, perhaps in an earlier attempt.
    """
    problem = records_problem(run.path, progress.best)
    if problem is not None:
        raise PreconditionError(f"the best student is damaged: {problem}", hint="train anew with --force")


def _figures(trainer: DistillTrainer, source: TeacherSource | None) -> dict[str, Any]:
    progress = trainer.progress
    seconds = trainer.seconds_so_far()
    figures: dict[str, Any] = {
        "train": {
            "steps": trainer.state.global_step,
            "tokens": progress.tokens,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(progress.tokens / max(seconds, 1e-9), 2),
            "peak_memory_bytes": peak_memory_bytes(),
        },
        "decisions": {"compiled_loss": "on" if trainer.compile_kernels else "off"},
        "best": {"step": trainer.state.best_global_step, "bits_per_byte": trainer.state.best_metric},
    }
    if source is not None:
        figures["teacher_pass"] = source.figures()
    mass = trainer.objective.mass
    if mass.rows:
        figures["alignment"] = {"mass_mapped": mass.mapped / mass.rows, "rows": mass.rows}
    return figures
