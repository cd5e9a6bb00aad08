"""One training of a student: from its start, or its newest checkpoint, to the best and the final student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import set_seed

from distillkit.console import Console, ProgressHandle
from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import load_examples, stored_rows
from distillkit.data.step_shares import share_of_step
from distillkit.data.stored_rows import Rows
from distillkit.data.training_rows import Row
from distillkit.device.memory import peak_memory_bytes
from distillkit.errors import Interrupted, PreconditionError
from distillkit.evaluation.batched_forward import head_width
from distillkit.evaluation.held_out import scored_texts
from distillkit.evaluation.speed import model_size
from distillkit.interrupts import check_interrupted
from distillkit.processes.group import Group
from distillkit.processes.taking_part import process_count, together
from distillkit.run.context import TrainingContext
from distillkit.settings.conditions import is_tempered
from distillkit.silence_libraries import silence_transformers
from distillkit.storage import file_records, files_below, make_folder, records_problem
from distillkit.teachers.protocol import TeacherSource
from distillkit.training.activation_memory import keep_inputs_only
from distillkit.training.adapter_trainer import AdapterTrainer, adapt
from distillkit.training.arguments import times_read, total_steps, training_arguments
from distillkit.training.compiling import compile_loss
from distillkit.training.decisions import TeacherChoice, is_divided
from distillkit.training.early_stopping import EarlyStopping
from distillkit.training.export import export_student
from distillkit.training.held_out_score import HeldOutScore
from distillkit.training.metrics_log import MetricsLog
from distillkit.training.objectives import training_objective
from distillkit.training.on_policy import OnPolicy
from distillkit.training.progress import Progress
from distillkit.training.schedules import Course
from distillkit.training.trackers import reporting
from distillkit.training.trainer import DistillTrainer


def _hint(context: TrainingContext, source: TeacherSource | None) -> None:
    """What the experiment in benchmarks/cross_tokenizer found of weights that do not go by the temperature."""
    config = context.config
    if source is None or context.pair.same_tokenizer or config.temperature <= 1 or is_tempered(vars(config)):
        return
    if config.alignment in ("auto", "bpm"):
        context.console.info(
            f"hint: across tokenizers --alpha-schedule {config.alpha_schedule} made worse students than no teacher at this "
            "temperature in our measurements (docs/cross-tokenizer.md): use --alpha-schedule tempered, or --preset tuned"
        )


@dataclass(frozen=True)
class TrainingPlace:
    """Where a training writes: the run directory itself, or a folder in it for a training beside the real one.

    Attributes:
        folder: holds checkpoints/, student/ and metrics.jsonl.
    """

    folder: Path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def student(self) -> Path:
        return self.folder / "student"

    @property
    def best_student(self) -> Path:
        """The best student by held-out score, or the final one where no best is kept."""
        best = self.student / "best"
        return best if best.is_dir() else self.student / "final"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"


@dataclass(frozen=True)
class Training:
    """What a training is made of; every process of several builds the same.

    Attributes:
        context: its configuration decides alpha, beta and everything else of the training.
        source: of the teacher's targets; None where the teacher's distributions have no part.
        rows: the texts.
        place: where everything goes.
        checkpoint: in `place.checkpoints`, to continue from.
        fingerprint: what the checkpoints belong to.
        teacher_choice: how `source` is had, for the other processes.
        label: what the progress display calls it.
        start_score: the held-out score of the student before the first step, where it is known: another training of the run began with
            the same student.
    """

    context: TrainingContext
    source: TeacherSource | None
    rows: Rows
    place: TrainingPlace
    checkpoint: Path | None
    fingerprint: str
    teacher_choice: TeacherChoice | None = None
    label: str = "training"
    start_score: float | None = None

    @property
    def resumed_step(self) -> int:
        return int(self.checkpoint.name.removeprefix("step-")) if self.checkpoint else 0

    @property
    def steps(self) -> int:
        return total_steps(self.context.config, len(self.rows))

    def for_others(self) -> dict[str, Any]:
        """What the other processes need to build the same (`training.following`), as JSON."""
        return {
            "config": asdict(self.context.config),
            "run": str(self.context.run.path),
            "place": str(self.place.folder),
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "fingerprint": self.fingerprint,
            "teacher": None if self.teacher_choice is None else asdict(self.teacher_choice),
            "texts": "true" if self.label == "control" else "all",
            "start_score": self.start_score,
        }

    def trainer(self, student: nn.Module, display: ProgressHandle, compiled: bool, group: Group) -> DistillTrainer:
        """The trainer of this process.

        Args:
            student: trained in place.
            compiled: whether the loss is.
            group: the processes that train together.
        """
        context, source, checkpoint = self.context, self.source, self.checkpoint
        config, compute = context.config, context.compute
        objective = training_objective(context, source)
        on_policy = OnPolicy.of(context, source, self.rows)
        if on_policy is not None:
            objective = on_policy.beside(objective)
            if checkpoint is not None:
                on_policy.restore(checkpoint)
        saves = config.save_metrics and group.leads
        arguments = training_arguments(
            config,
            compute,
            self.place.checkpoints,
            len(self.rows),
            resumed=checkpoint is not None,
            processes=group.size,
        )
        kind = DistillTrainer if config.adapter == "none" else AdapterTrainer
        return kind(
            model=student,
            args=arguments,
            train_dataset=TrainingRows(self.rows),
            eval_dataset=TrainingRows(
                ()
            ),  # `evaluate` scores the validation part itself; the Trainer only asks for one
            data_collator=DistillationCollator(
                white_box=source is not None,
                aligned=source is not None and source.pairs_rows and context.pairs_rows,
                prepare=objective.prepare,
            ),
            objective=objective,
            alpha=config.alpha,
            beta=config.beta,
            schedule=config.lr_schedule,
            lengths=self.rows.lengths("student_ids").tolist(),
            # A training that goes on from a checkpoint does not score its start.
            held_out_score=_held_out_score(context, group, self.start_score if checkpoint is None else None),
            fingerprint=self.fingerprint,
            on_best=_keep_best(context, self.place) if config.save_best_model else None,
            metrics_log=MetricsLog(self.place.metrics if saves else None, self.resumed_step),
            progress=Progress.load(checkpoint) if checkpoint else Progress(),
            display=display,
            teacher=source,
            compile_kernels=compiled,
            course=Course.of(config),
            muon=config.optimizer == "muon",
            stopping=EarlyStopping(config.early_stopping_patience),
            on_policy=on_policy,
            group=group,
            divided=is_divided(config, group.size),
        )

    def run(self, student: nn.Module, console: Console, group: Group) -> DistillTrainer:
        """Train a student, in place; the trainer when it has stopped.

        Raises:
            DistillkitError: a loss or a score is no number, or something cannot be written.
        """
        config, checkpoint = self.context.config, self.checkpoint
        set_seed(config.seed)
        adapt(student, config, self.context.pair.student.reference.text, console)
        tokens = int(self.rows.lengths("student_ids").sum())
        compiled = compile_loss(self.context, round(tokens * head_width(student) * times_read(config, len(self.rows))))
        if config.gradient_checkpointing:
            keep_inputs_only(student, self.context.pair.student.reference.text)
        with console.progress(self.label, total=self.steps, unit="steps", completed=self.resumed_step) as display:
            trainer = self.trainer(student, display, compiled, group)
            if trainer.gathers_all:
                console.info(
                    "its layers cannot be told apart: each process gathers all of the student's weights at once"
                )
            with silence_transformers():
                if checkpoint and (trainer.stopping.ended(checkpoint) or config.max_steps == self.resumed_step):
                    trainer.take_over(checkpoint)
                else:
                    self._train(trainer, group)
        if not trainer.stopped_by_signal:
            trainer.gather()
        return trainer

    def _train(self, trainer: DistillTrainer, group: Group) -> None:
        """Train; process 0 tells the trackers.

        Raises:
            Interrupted: a signal arrived; the last step is saved.
        """
        context, source = self.context, self.source

        def rates() -> dict[str, float]:
            found = {"tokens_per_second": trainer.progress.tokens / max(trainer.figures.seconds_so_far(), 1e-9)}
            if source is not None and (teachers := source.figures().get("tokens_per_second")) is not None:
                found["teacher_tokens_per_second"] = teachers
            return found

        start = str(self.checkpoint) if self.checkpoint else None
        if not group.leads:
            trainer.train(resume_from_checkpoint=start)
            return
        name = context.run.path.name
        with reporting(
            context.config, self.place.folder, name if self.label == "training" else f"{name}-{self.label}",
            resumed_step=self.resumed_step, parameters=model_size(trainer.accelerator.unwrap_model(trainer.model)).parameters,
            rates=rates, console=context.console,
        ) as callbacks:  # fmt: skip
            for callback in callbacks:
                trainer.add_callback(callback)
            trainer.train(resume_from_checkpoint=start)
            raise_if_stopped(trainer)


def train_student(training: Training, student: nn.Module) -> dict[str, Any]:
    """Train a student, in place, in as many processes as there are, and write it.

    Returns:
        Its figures, for metrics.json.

    Raises:
        DistillkitError: a loss or a score is no number, or something cannot be written; another process has failed.
        UsageError: a step cannot be divided between the processes.
        PreconditionError: the best student that an earlier attempt has exported is damaged.
        Interrupted: a signal arrived; the last step is saved.
    """
    context, place = training.context, training.place
    config, console = context.config, context.console
    _hint(context, training.source)
    make_folder(place.checkpoints)
    if training.checkpoint:
        console.info(f"continuing from step {training.resumed_step} of {training.steps}")
    if (processes := process_count()) > 1:
        share = share_of_step(config.batch_size, config.gradient_accumulation, processes)
        divided = ", and the student is divided between them" if is_divided(config, processes) else ""
        console.info(
            f"{processes} processes train together: of every step {share.batch_size} examples × {share.accumulation} in "
            f"each{divided}"
        )
    elif config.parallel == "fsdp":
        console.info("--parallel fsdp: there is one process, so the student is not divided (docs/scale.md)")
    with together("train", training.for_others) as group:
        trainer = training.run(student, console, group)
    raise_if_stopped(trainer)
    _check_best(place, trainer.progress)
    final = trainer.accelerator.unwrap_model(trainer.model)
    export_student(place.student / "final", final, context.pair, config, context.run)
    check_interrupted()
    return _figures(trainer, training.source)


def raise_if_stopped(trainer: DistillTrainer) -> None:
    """After a training that a signal may have ended.

    Raises:
        Interrupted: it did, before the last step.
    """
    number, state = trainer.signal_received(), trainer.state
    if number is not None and trainer.stopped_by_signal:
        raise Interrupted(number, f"stopped after step {state.global_step} of {state.max_steps}; it is saved")


class TrainingRows(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows as the Trainer wants them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def _held_out_score(context: TrainingContext, group: Group, first: float | None) -> HeldOutScore:
    """Of the validation part, by all processes."""
    examples = stored_rows(load_examples(context.run.data / "validation"))
    texts = scored_texts(examples, context.encoders.student, "student")
    return HeldOutScore(
        texts, context.compute, group=group, divided=is_divided(context.config, group.size), first=first
    )


def _keep_best(context: TrainingContext, place: TrainingPlace) -> Callable[[nn.Module], list[dict[str, Any]]]:
    def keep(model: nn.Module) -> list[dict[str, Any]]:
        export_student(place.student / "best", model, context.pair, context.config, context.run)
        return file_records(place.folder, without_cards(files_below(place.student / "best")))

    return keep


def without_cards(paths: Sequence[Path]) -> list[Path]:
    """`validate` writes its figures into the cards."""
    return [path for path in paths if path.name != "README.md"]


def _check_best(place: TrainingPlace, progress: Progress) -> None:
    """Refuse to offer another student than the one that was the best.

    Raises:
        PreconditionError: its files are not those that were exported, perhaps in an earlier attempt.
    """
    problem = records_problem(place.folder, progress.best)
    if problem is not None:
        raise PreconditionError(f"the best student is damaged: {problem}", hint="train anew with --force")


def _figures(trainer: DistillTrainer, source: TeacherSource | None) -> dict[str, Any]:
    progress = trainer.progress
    seconds = trainer.figures.seconds_so_far()
    figures: dict[str, Any] = {
        "train": {
            "steps": trainer.state.global_step,
            "tokens": progress.tokens,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(progress.tokens / max(seconds, 1e-9), 2),
            "peak_memory_bytes": peak_memory_bytes(),
            **(
                {"trained_parameters": trainer.get_num_trainable_parameters()}
                if isinstance(trainer, AdapterTrainer)
                else {}
            ),
        },
        "decisions": {"compiled_loss": "on" if trainer.compile_kernels else "off"},
        "held_out": [
            {"step": line["step"], "bits_per_byte": line["eval_bits_per_byte"]}
            for line in trainer.state.log_history
            if "eval_bits_per_byte" in line
        ],
        "best": {"step": trainer.state.best_global_step, "bits_per_byte": trainer.state.best_metric},
    }
    if trainer.stopped_early:
        figures["train"]["stopped_early"] = {"patience": trainer.stopping.patience, "of_steps": trainer.state.max_steps}
    if source is not None:
        figures["teacher_pass"] = source.figures()
    if trainer.on_policy is not None:
        figures["on_policy"] = trainer.on_policy.figures(trainer.state.global_step)
    mass = trainer.objective.mass
    if mass.rows:
        figures["alignment"] = {"mass_mapped": mass.mapped / mass.rows, "rows": mass.rows}
    return figures
