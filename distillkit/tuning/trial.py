"""A trial: one short training of the student from its start, and its score on the validation part.

It is the training of the run itself with other settings and fewer texts: the same start, seed, order of texts, schedule (the
whole of it, over this length) and objective. Nothing is exported and there are no checkpoints: a trial that is cut off is run
again.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import set_seed

from distillkit.console import Console, ProgressHandle
from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import load_examples, stored_rows
from distillkit.data.stored_rows import Rows, TakenRows
from distillkit.errors import Interrupted, NotFiniteError
from distillkit.evaluation.batched_forward import head_width
from distillkit.evaluation.bits_per_byte import score
from distillkit.evaluation.held_out import scored_texts
from distillkit.interrupts import check_interrupted, pending
from distillkit.models.backbone_and_head import SplitModel, split_model
from distillkit.run.context import TrainingContext
from distillkit.settings.parameters import Parameters
from distillkit.silence_libraries import silence_transformers
from distillkit.teachers.protocol import TeacherSource
from distillkit.training.activation_memory import keep_inputs_only
from distillkit.training.arguments import total_steps, training_arguments
from distillkit.training.compiling import compile_loss
from distillkit.training.metrics_log import MetricsLog
from distillkit.training.objectives import training_objective
from distillkit.training.progress import Progress
from distillkit.training.schedules import Course
from distillkit.training.session import TrainingRows
from distillkit.training.trainer import DistillTrainer
from distillkit.tuning.halving import Amount
from distillkit.tuning.journal import Trial
from distillkit.tuning.space import Settings


class Trials:
    """Runs trials on the texts of a run, all with one teacher.

    Args:
        context: of the run, with its configuration.
        rows: the training texts; of black box also the teacher's, with the ids of the texts that they continue.
        source: of the teacher's targets; None where the teacher's distributions have no part.
        folder: an existing folder for the Trainer, which leaves nothing there.
        load_student: gives a student before training, a new one each time; default: that of the run.

    Attributes:
        texts: how many texts there are; of black box a text and its continuation are one.
    """

    def __init__(
        self,
        context: TrainingContext,
        rows: Rows,
        source: TeacherSource | None,
        folder: Path,
        load_student: Callable[[Console], nn.Module] | None = None,
    ) -> None:
        self.context = context
        self.rows = rows
        self.source = source
        self.folder = folder
        self.load_student = load_student or context.pair.load_student
        self._ids = list(dict.fromkeys(rows.numbers("id").tolist()))
        self.texts = len(self._ids)
        self._held_out = scored_texts(
            stored_rows(load_examples(context.run.data / "validation")), context.encoders.student, "student"
        )

    def start_score(self) -> float:
        """Bits per byte of the student before training.

        Raises:
            NotFiniteError: it has none.
        """
        student = self.load_student(self.context.console).to(self.context.compute.device)
        return self._score(student, split_model(student))

    def run(self, settings: Settings, amount: Amount, label: str, start: float) -> Trial:
        """Train a student anew and score it.

        Args:
            label: what the display calls it.
            start: the score before training: who ends up worse has diverged.

        Raises:
            Interrupted: a signal arrived; the trial has to be run again.
            DistillkitError: the teacher gives no numbers.
        """
        began = time.monotonic()
        check_interrupted()
        context = dataclasses.replace(self.context, config=trial_config(self.context.config, settings, amount))
        rows = self.rows_of(context.config, amount)
        student = self.load_student(Console(quiet=True))
        if context.config.gradient_checkpointing:
            keep_inputs_only(student, self.context.pair.student.reference.text)
        parts = split_model(student)  # For mixed precision its forward pass is changed when it is trained.
        set_seed(context.config.seed)
        compiling = time.monotonic()
        # Decided as for the whole training, because the compiled loss serves all trials.
        compiled = compile_loss(context, self._logits(student))
        training = time.monotonic()
        trained = training
        try:
            with context.console.progress(label, total=total_steps(context.config, len(rows)), unit="steps") as display:
                self._train(context, student, rows, compiled, display)
            trained = time.monotonic()
            value, diverged = self._score(student, parts), None
            if value > start:
                diverged = f"{value:.4g} bits per byte, {start:.4g} before training"
        except NotFiniteError as error:
            trained = max(trained, training)
            value, diverged = math.inf, error.message
        del student
        gc.collect()
        return Trial(
            settings=dict(settings),
            amount=amount,
            score=value if diverged is None else math.inf,
            diverged=diverged,
            seconds=time.monotonic() - began,
            training_seconds=trained - training,
            once_seconds=training - compiling,
        )

    def rows_of(self, config: Parameters, amount: Amount) -> Rows:
        """The rows of the first texts of an amount, in the order of the run's own training.

        Black box with beta 0 trains on the teacher's texts alone.
        """
        taken = np.isin(self.rows.numbers("id"), self._ids[: amount.texts])
        if config.box_type == "black" and config.beta == 0:
            taken &= self.rows.numbers("teacher_text").astype(bool)
        return TakenRows(self.rows, np.flatnonzero(taken))

    def _logits(self, student: nn.Module) -> int:
        tokens = int(self.rows.lengths("student_ids").sum())
        return tokens * head_width(student) * self.context.config.epochs

    def _train(
        self,
        context: TrainingContext,
        student: nn.Module,
        rows: Rows,
        compiled: bool,
        display: ProgressHandle,
    ) -> None:
        config, source = context.config, self.source
        objective = training_objective(context, source)
        arguments = training_arguments(config, context.compute, self.folder, len(rows), resumed=True)
        trainer = _TrialTrainer(
            model=student,
            args=arguments,
            train_dataset=TrainingRows(rows),
            eval_dataset=TrainingRows(()),
            data_collator=DistillationCollator(
                white_box=source is not None,
                aligned=source is not None and source.pairs_rows and context.pairs_rows,
                prepare=objective.prepare,
            ),
            objective=objective,
            alpha=config.alpha,
            beta=config.beta,
            schedule=config.lr_schedule,
            lengths=rows.lengths("student_ids").tolist(),
            held_out_score=self._score,
            fingerprint="",  # no checkpoint carries it
            on_best=None,
            metrics_log=MetricsLog(None, 0),
            progress=Progress(),
            display=display,
            teacher=source,
            compile_kernels=compiled,
            course=Course.of(config),
            muon=config.optimizer == "muon",
        )
        with silence_transformers():
            trainer.train()
        number = pending()
        if number is not None and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(number, "stopped in the middle of a trial; the finished ones are kept")

    def _score(self, student: nn.Module, parts: SplitModel) -> float:
        compute = self.context.compute
        return score(
            student, self._held_out, device=compute.device, autocast_dtype=compute.autocast, interruptible=True,
            parts=parts,
        ).bits_per_byte  # fmt: skip


class _TrialTrainer(DistillTrainer):
    """Neither logs nor scores nor saves while it trains; all that counts is the student at the end."""

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        return


def trial_config(config: Parameters, settings: Settings, amount: Amount) -> Parameters:
    """The configuration of a run with the settings and the length of a trial, whatever may end the run's own training."""
    weights = {"beta": round(1 - settings["alpha"], 12)} if "alpha" in settings else {}
    return dataclasses.replace(config, **settings, **weights, epochs=amount.epochs, max_steps=None)
