"""distill: the teacher's part, then the student's training, then the best and the final student.

Writes checkpoints/, student/best, student/final, metrics.jsonl and metrics.json; for black box teacher/generated.jsonl.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import set_seed

from distillkit.console import Console, format_bytes, format_duration
from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import ROW_COLUMNS, load_examples
from distillkit.data.text_encoder import TextEncoders
from distillkit.device.memory import explained_memory_errors, peak_memory_bytes
from distillkit.device.precision import Compute, choose_compute
from distillkit.errors import DistillkitError, Interrupted, PreconditionError
from distillkit.evaluation.batched_forward import head_width
from distillkit.evaluation.bits_per_byte import score
from distillkit.evaluation.held_out import scored_texts
from distillkit.interrupts import check_interrupted, pending
from distillkit.losses.mapped_mass import MappedMass
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import ModelPair, open_pair
from distillkit.settings.parameters import Parameters
from distillkit.silence_libraries import silence_transformers
from distillkit.stages import StageResult
from distillkit.storage import (
    explained_write_errors,
    file_records,
    files_below,
    fingerprint_of,
    make_folder,
    records_problem,
    remove_tree,
    write_json,
)
from distillkit.teachers.black_box import teacher_writing
from distillkit.teachers.fill_sparse import mapped_mass
from distillkit.teachers.open_sparse import open_sparse
from distillkit.teachers.protocol import Teacher
from distillkit.teachers.source import TeacherLoader, TeacherSource, choose_cache, open_exact, open_live
from distillkit.training import checkpoints
from distillkit.training.aligned_objectives import aligned_objective
from distillkit.training.arguments import total_steps, training_arguments
from distillkit.training.compiling import compile_loss
from distillkit.training.export import export_student
from distillkit.training.metrics_log import MetricsLog
from distillkit.training.objectives import (
    BlackBox,
    HardOnly,
    Objective,
    SoftSettings,
    SparseObjective,
    needs_teacher,
    same_tokenizer_objective,
)
from distillkit.training.trainer import DistillTrainer, Progress


def run(config: Parameters, run: RunDirectory, console: Console, *, from_scratch: bool = False) -> StageResult:
    """Train the student, from the newest committed checkpoint if there is one."""
    if from_scratch:
        for folder in (run.checkpoints, run.student, run.teacher):
            with explained_write_errors(folder):
                remove_tree(folder)
    fingerprint = checkpoint_fingerprint(config, run)
    found = checkpoints.newest_valid(run.checkpoints, fingerprint)
    for words in found.passed_over:
        console.warn(f"ignored checkpoint {words}")
    if found.path is not None:
        checkpoints.prune(run.checkpoints, newest=found.path)  # An earlier attempt may have been killed while it did.

    compute = choose_compute(config)
    pair = open_pair(config, run, console)
    encoders = pair.text_encoders(config)
    with explained_memory_errors():
        examples, teacher = _teacher_part(config, run, pair, encoders, compute, console)
        student = pair.load_student(console)
        _check_disk(config, run, student)
        figures = _train(
            config, run, pair, encoders, compute, student, teacher, examples, found.path, fingerprint, console
        )

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


def _teacher_part(
    config: Parameters, run: RunDirectory, pair: ModelPair, encoders: TextEncoders, compute: Compute, console: Console
) -> tuple[list[dict[str, Any]], TeacherSource | None]:
    """The examples to train on, and the teacher where its logits are needed (white box)."""
    start = 0 if encoders.student.start_id is None else 1
    stored = load_examples(run.data / "train")
    if config.box_type == "white":
        if not needs_teacher(config.box_type, config.alpha):
            console.info("alpha is 0: the teacher is not needed, this is plain fine-tuning")
            return _true_examples(stored, start), None
        columns = ["id", "student_ids", "teacher_ids", *ROW_COLUMNS]
        rows = [{**row, "first_target": start} for row in stored.select_columns(columns).to_list()]
        if pair.same_tokenizer and uses_alignment(config, pair):
            for row in rows:
                row |= _identical_rows(len(row["student_ids"]))
        # With one tokenizer the teacher reads the student's very tokens.
        token_ids = [row["student_ids" if pair.same_tokenizer else "teacher_ids"] for row in rows]
        for index, row in enumerate(rows):
            row["cache_index"] = index
        return rows, _white_box_teacher(config, run, pair, encoders, compute, rows, token_ids, console)
    true_examples = _true_examples(stored, start) if config.beta > 0 else []
    if config.alpha == 0:
        console.info("alpha is 0: the teacher does not write anything, this is plain fine-tuning")
        return true_examples, None
    written = teacher_writing(config, run, pair, encoders, compute, stored, console)
    return true_examples + written, None


def _white_box_teacher(
    config: Parameters,
    run: RunDirectory,
    pair: ModelPair,
    encoders: TextEncoders,
    compute: Compute,
    rows: Sequence[dict[str, Any]],
    token_ids: Sequence[Sequence[int]],
    console: Console,
) -> TeacherSource:
    loader = TeacherLoader(config, run.path.parent, pair, compute, token_ids, console)
    choice = choose_cache(config, loader, run.teacher / "cache.json", console)
    if choice.mode == "exact":
        return open_exact(loader)
    if choice.mode == "off":
        return open_live(loader)

    def maker(states: Teacher) -> Any:
        return _white_box_objective(config, pair, encoders, states)

    return open_sparse(config, loader, encoders, rows, maker, aligned=uses_alignment(config, pair))


def _true_examples(stored: Any, first_target: int) -> list[dict[str, Any]]:
    """The texts themselves, nothing in them the teacher's."""
    rows = stored.select_columns(["id", "student_ids"]).to_list()
    return [{**row, "first_target": first_target, "teacher_text": False} for row in rows]


def uses_alignment(config: Parameters, pair: ModelPair) -> bool:
    """Whether rows are paired: always across tokenizers, with one tokenizer only where an alignment is asked for."""
    return not pair.same_tokenizer or config.alignment != "auto"


def _identical_rows(inputs: int) -> dict[str, list[int]]:
    """With one tokenizer every row is the teacher's, and both go on to the next."""
    rows, zeros = list(range(inputs - 1)), [0] * (inputs - 1)
    return dict(zip(ROW_COLUMNS, (rows, rows, zeros, list(range(1, inputs)), zeros), strict=True))


def _hint(config: Parameters, pair: ModelPair, teacher: TeacherSource | None, console: Console) -> None:
    """What the experiment in benchmarks/cross_tokenizer found; the promised defaults stay what they are."""
    if teacher is None or pair.same_tokenizer or config.temperature <= 1 or config.alignment not in ("auto", "bpm"):
        return
    console.info(
        "hint: across tokenizers temperature 1 made better students in our measurements (docs/cross-tokenizer.md): "
        "--temperature 1 --alpha 0.5, or --preset tuned"
    )


def _objective(config: Parameters, pair: ModelPair, encoders: TextEncoders, teacher: TeacherSource | None) -> Objective:
    if config.box_type == "black":
        return BlackBox()
    if teacher is None:
        return HardOnly()
    if teacher.sparse is not None:
        return SparseObjective(teacher.sparse, SoftSettings.of(config).loss)
    if teacher.states is None:
        raise ValueError("a teacher is either sparse or has states")
    return _white_box_objective(config, pair, encoders, teacher.states)


def _white_box_objective(config: Parameters, pair: ModelPair, encoders: TextEncoders, states: Teacher) -> Objective:
    if uses_alignment(config, pair):
        return aligned_objective(config, states, encoders)
    return same_tokenizer_objective(config, states, encoders)


# --- training --------------------------------------------------------------------------------------------------------


def _train(
    config: Parameters,
    run: RunDirectory,
    pair: ModelPair,
    encoders: TextEncoders,
    compute: Compute,
    student: nn.Module,
    teacher: TeacherSource | None,
    examples: Sequence[dict[str, Any]],
    checkpoint: Path | None,
    fingerprint: str,
    console: Console,
) -> dict[str, Any]:
    objective = _objective(config, pair, encoders, teacher)
    _hint(config, pair, teacher, console)
    progress = Progress.load(checkpoint) if checkpoint else Progress()
    resumed_step = int(checkpoint.name.removeprefix("step-")) if checkpoint else 0
    log = MetricsLog(run.path / "metrics.jsonl" if config.save_metrics else None, resumed_step)
    set_seed(config.seed)
    make_folder(run.checkpoints)
    steps = total_steps(config, len(examples))
    if checkpoint:
        console.info(f"continuing from step {resumed_step} of {steps}")
    rows = sum(len(example["student_ids"]) for example in examples)
    compiles = compile_loss(config, compute, rows * head_width(student), console, aligned=uses_alignment(config, pair))
    with console.progress("training", total=steps, unit="steps", completed=resumed_step) as display:
        trainer = DistillTrainer(
            model=student,
            args=training_arguments(config, compute, run.checkpoints, len(examples), resumed=checkpoint is not None),
            train_dataset=_Rows(examples),
            eval_dataset=_Rows(()),  # `evaluate` scores the validation part itself; the Trainer only asks for one
            data_collator=DistillationCollator(
                white_box=teacher is not None,
                # Sparse targets know their rows themselves.
                aligned=uses_alignment(config, pair) and teacher is not None and teacher.sparse is None,
            ),
            objective=objective,
            alpha=config.alpha,
            beta=config.beta,
            schedule=config.lr_schedule,
            lengths=[len(example["student_ids"]) for example in examples],
            held_out_score=_held_out_score(run, encoders, compute),
            fingerprint=fingerprint,
            on_best=_keep_best(run, pair, config) if config.save_best_model else None,
            metrics_log=log,
            progress=progress,
            display=display,
            compile_kernels=compiles,
        )
        if teacher is not None and teacher.live is not None:
            trainer.count_teacher(teacher.live)
        with silence_transformers():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    number = pending()
    if number is not None and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(number, f"stopped after step {trainer.state.global_step} of {steps}; it is saved")
    _check_best(run, progress)
    final = trainer.accelerator.unwrap_model(trainer.model)
    export_student(run.student / "final", final, pair, config, run)
    check_interrupted()
    return _figures(trainer, teacher, objective)


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Examples in memory; token lists are small beside the models."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def _held_out_score(run: RunDirectory, encoders: TextEncoders, compute: Compute) -> Callable[[nn.Module], float]:
    """Bits per byte of the validation part. Not interruptible: a step that is scored is also saved."""
    texts = scored_texts(load_examples(run.data / "validation"), encoders.student, "student")

    def held_out(model: nn.Module) -> float:
        value = score(
            model, texts, device=compute.device, autocast_dtype=compute.autocast, interruptible=False
        ).bits_per_byte
        if not math.isfinite(value):
            raise DistillkitError(f"the held-out score became {value}", hint="lower --learning-rate")
        return value

    return held_out


def _keep_best(run: RunDirectory, pair: ModelPair, config: Parameters) -> Callable[[nn.Module], list[dict[str, Any]]]:
    def keep(model: nn.Module) -> list[dict[str, Any]]:
        export_student(run.student / "best", model, pair, config, run)
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


def _check_disk(config: Parameters, run: RunDirectory, student: nn.Module) -> None:
    """Refuse to begin what cannot be finished: each checkpoint holds the weights and two moments in fp32."""
    weights = sum(parameter.numel() * 4 for parameter in student.parameters())
    needed = weights * (3 * (checkpoints.KEEP + 1) + 2 + (1 if config.save_best_model else 0))
    existing = sum(path.stat().st_size for path in files_below(run.checkpoints)) if run.checkpoints.is_dir() else 0
    free = shutil.disk_usage(run.path).free + existing
    if free < needed:
        raise DistillkitError(
            f"{run.path}: {format_bytes(needed)} of disk are needed for checkpoints and students, {format_bytes(free)} are free",
            hint="free some space, or choose another --output-dir",
        )


def _figures(trainer: DistillTrainer, teacher: TeacherSource | None, objective: object) -> dict[str, Any]:
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
        "best": {"step": trainer.state.best_global_step, "bits_per_byte": trainer.state.best_metric},
    }
    if teacher is not None and teacher.live is None:
        figures["teacher_pass"] = teacher.figures
    elif teacher is not None:
        tokens, spent = trainer.teacher_totals()
        figures["teacher_pass"] = {
            "tokens": tokens,
            "seconds": round(spent, 3),
            "tokens_per_second": round(tokens / max(spent, 1e-9), 2),
            "cached_tokens": 0,
            "cache_bytes": 0,
        }
    mass: MappedMass | None = getattr(objective, "mass", None)
    if teacher is not None and teacher.sparse is not None:
        mass = mapped_mass(teacher.sparse)
    if mass is not None and mass.rows:
        figures["alignment"] = {"mass_mapped": mass.mapped / mass.rows, "rows": mass.rows}
    return figures
