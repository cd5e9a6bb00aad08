"""`--tune-teacher`: the teacher is fine-tuned on the training texts before it teaches.

Teacher correction (Sreenivas et al. 2024, arXiv 2408.11796): a teacher that was made with texts of another kind guides a
student better once it has seen some of these. It is trained as a student is, by `DistillTrainer` with cross-entropy alone: the
same batches, checkpoints and choice of the best step by the validation part, on what the teacher itself reads.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import set_seed

from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import load_examples, stored_rows
from distillkit.data.stored_rows import Rows, StoredRows
from distillkit.data.training_rows import tuning_rows
from distillkit.device.malloc import trim_heap
from distillkit.errors import PreconditionError
from distillkit.evaluation.held_out import scored_texts
from distillkit.interrupts import check_interrupted
from distillkit.models.model_files import read_config, weight_files
from distillkit.models.quantised import quantisation
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.models.save_errors import plain_save_errors
from distillkit.models.shape import model_shape
from distillkit.models.student_files import save_student
from distillkit.run.context import TrainingContext
from distillkit.settings.declared import default
from distillkit.silence_libraries import silence_transformers
from distillkit.storage import (
    explained_write_errors,
    file_records,
    files_below,
    fingerprint_of,
    make_folder,
    records_problem,
    remove_tree,
    write_folder,
)
from distillkit.teachers.exact_cache import CacheKey
from distillkit.training import checkpoints
from distillkit.training.activation_memory import keep_inputs_only
from distillkit.training.arguments import training_arguments
from distillkit.training.decisions import TuningFacts
from distillkit.training.export_check import check_written
from distillkit.training.held_out_score import HeldOutScore
from distillkit.training.metrics_log import MetricsLog
from distillkit.training.objectives import HardOnly
from distillkit.training.progress import Progress
from distillkit.training.session import TrainingRows, raise_if_stopped
from distillkit.training.trainer import DistillTrainer
from distillkit.training.tuned_teacher import TunedTeacher, TuningPlace, read_record, write_record

# What the tuned teacher depends on besides the settings of the run; a change makes every tuning a new one.
FORMAT = 1
# Of a model that is trained already, whatever suits the student; falls linearly to 0. docs/methods.md compares two.
LEARNING_RATE = 5e-5
WARMUP_FRACTION = 0.1
_REMEDY = "give a smaller number to --tune-teacher, or leave it out"


class TeacherTuning:
    """The tuning of the teacher of a run.

    Args:
        rows: of `white_box_rows`: what the teacher reads.
        fingerprint: of the teacher as it came; default: computed from its files, which reads them all.

    Attributes:
        key: everything that the tuned teacher depends on. Neither what the student is trained with is part of it, nor the
            machine.
        place: where it goes.
    """

    def __init__(self, context: TrainingContext, rows: StoredRows, fingerprint: str | None = None) -> None:
        self.context = context
        self.place = TuningPlace.of(context.run)
        self.steps = context.config.tune_teacher
        self.teacher = context.pair.teacher
        self._done: TunedTeacher | None = None
        first_target = 0 if context.encoders.teacher.start_id is None else 1
        self.rows = tuning_rows(rows, first_target=first_target)
        config = context.config
        texts = [_digest(self.rows.lists("student_ids")), _digest(self._held_out.lists("teacher_ids"))]
        if len(self.rows) and "target_spans" in self.rows[0]:
            texts += [
                _digest([[edge for span in spans for edge in span] for spans in part])
                for part in (_spans(self.rows, "target_spans"), _spans(self._held_out, "teacher_scored"))
            ]
        self.key = fingerprint_of(
            [
                FORMAT, LEARNING_RATE, WARMUP_FRACTION, fingerprint or self.teacher.fingerprint(), first_target, texts,
                self.steps, config.batch_size, config.gradient_accumulation, config.checkpoint_interval, config.seed,
                config.precision,
            ]
        )  # fmt: skip

    @cached_property
    def _held_out(self) -> StoredRows:
        """The validation part, by which the best step is chosen."""
        return stored_rows(load_examples(self.context.run.data / "validation"))

    def facts(self) -> TuningFacts:
        """What decides whether this teacher can be tuned."""
        config, stored = read_config(self.teacher.folder), StoredWeights(list(weight_files(self.teacher.folder)))
        shape = model_shape(config)
        return TuningFacts(shape.parameters if shape else stored.numbers, quantisation(config, stored))

    def done(self, *, prove: bool = True) -> TunedTeacher | None:
        """What it came to, where that is known.

        Args:
            prove: whether the files are compared with what was written.

        Raises:
            PreconditionError: they are damaged.
        """
        self._done = self._done or read_record(self.place, self.context.pair, self.key, prove=prove)
        return self._done

    def run(self) -> TunedTeacher:
        """Tune the teacher, from the newest checkpoint if there is one; nothing is done again that is done.

        Raises:
            DistillkitError: a loss or a score is no number, or something cannot be written.
            PreconditionError: what an earlier attempt has written is damaged, or the teacher cannot be saved.
            Interrupted: a signal arrived; the last step is saved.
        """
        tuned = self.done()
        if tuned is None:
            with explained_write_errors(self.place.record):
                self.place.record.unlink(missing_ok=True)  # Of another tuning.
            tuned = self._done = write_record(self.place, self.context.pair, self.key, self._train())
            gc.collect()  # Trainer and model refer to each other; the student is not loaded beside them.
            trim_heap()
            self._say(tuned.figures)
        else:
            self.context.console.info(
                "the teacher was tuned before, on the same texts and in the same way: it is used again"
            )
        with explained_write_errors(self.place.root):
            remove_tree(self.place.checkpoints)
            if tuned.located is None:
                remove_tree(self.place.tuned)
        check_interrupted()
        return tuned

    def _say(self, figures: dict[str, Any]) -> None:
        before, after, console = figures["before"], figures["after"], self.context.console
        if figures["best_step"]:
            console.info(
                f"the teacher is tuned: {before:.4f} -> {after:.4f} bits per byte of the validation part "
                f"(step {figures['best_step']} of {self.steps})"
            )
        else:
            console.warn(
                f"tuning did not make the teacher better ({before:.4f} -> {after:.4f} bits per byte of the validation part "
                f"at best): it teaches as it came; {_REMEDY}"
            )

    def _train(self) -> dict[str, Any]:
        """Write the best teacher to `place.tuned`, and give the figures."""
        context, place = self.context, self.place
        config, compute, console = context.config, context.compute, context.console
        found = checkpoints.newest_valid(place.checkpoints, self.key)
        for words in found.passed_over:
            console.warn(f"ignored checkpoint {words}")
        checkpoint = found.path
        if checkpoint is None:
            with explained_write_errors(place.tuned):
                remove_tree(place.tuned)  # Of another tuning.
        else:
            checkpoints.prune(place.checkpoints, newest=checkpoint)
        progress = Progress.load(checkpoint) if checkpoint else Progress()
        resumed_step = int(checkpoint.name.removeprefix("step-")) if checkpoint else 0
        model = context.pair.load_teacher(torch.float32, console)
        set_seed(config.seed)
        make_folder(place.checkpoints)
        if checkpoint:
            console.info(f"tuning of the teacher continues from step {resumed_step} of {self.steps}")
        # The knobs of the student's training are not the teacher's; what only saves memory is.
        plain = {name: default(name) for name in ("optimizer", "weight_decay", "max_grad_norm")}
        own = replace(config, learning_rate=LEARNING_RATE, warmup_fraction=WARMUP_FRACTION, **plain)
        if config.gradient_checkpointing:
            keep_inputs_only(model, self.teacher.reference.text)
        arguments = training_arguments(
            own, compute, place.checkpoints, len(self.rows), resumed=checkpoint is not None, steps=self.steps
        )
        with console.progress("tuning the teacher", total=self.steps, unit="steps", completed=resumed_step) as display:
            objective = HardOnly()
            trainer = DistillTrainer(
                model=model,
                args=arguments,
                train_dataset=TrainingRows(self.rows),
                eval_dataset=TrainingRows(()),
                data_collator=DistillationCollator(white_box=False, aligned=False, prepare=objective.prepare),
                objective=objective,
                alpha=0.0,
                beta=1.0,
                schedule="linear",
                lengths=self.rows.lengths("student_ids").tolist(),
                held_out_score=self._held_out_score(),
                fingerprint=self.key,
                on_best=self._keep,
                metrics_log=MetricsLog(None, 0),
                progress=progress,
                display=display,
                role="teacher",
                remedy=_REMEDY,
            )
            if checkpoint is not None and resumed_step >= self.steps:
                # In the middle of an epoch the Trainer would go on to its end.
                trainer.take_over(checkpoint)
            else:
                with silence_transformers():
                    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        raise_if_stopped(trainer)
        return self._figures(trainer)

    def _held_out_score(self) -> HeldOutScore:
        """Of the validation part as the teacher reads it."""
        texts = scored_texts(self._held_out, self.context.encoders.teacher, "teacher")
        return HeldOutScore(texts, self.context.compute, name="held-out score of the teacher", remedy=_REMEDY)

    def _keep(self, model: nn.Module) -> list[dict[str, Any]]:
        """Write the best teacher so far; the files, as `storage.file_records`."""
        origin, trust = self.teacher.folder, self.context.config.trust_remote_code
        text = self._held_out[0]["teacher_ids"] if len(self._held_out) else []

        def fill(target: Path) -> None:
            with plain_save_errors(target):
                save_student(target, model, origin, trust_remote_code=trust)
            check_written(target, model, text, trust_remote_code=trust, role="teacher")

        write_folder(
            self.place.tuned, fill, sum(weights.numel() * weights.element_size() for weights in model.parameters())
        )
        return file_records(self.place.root, files_below(self.place.tuned))

    def _figures(self, trainer: DistillTrainer) -> dict[str, Any]:
        """Figures of a tuning that is complete.

        Raises:
            PreconditionError: the best teacher is not the one that was written, perhaps in an earlier attempt.
        """
        state, progress, seconds = trainer.state, trainer.progress, trainer.figures.seconds_so_far()
        problem = records_problem(self.place.root, progress.best)
        if problem is not None:
            raise PreconditionError(
                f"the tuned teacher is damaged: {problem}", hint="tune the teacher anew with --force"
            )
        before = next(line["eval_bits_per_byte"] for line in state.log_history if "eval_bits_per_byte" in line)
        after = state.best_metric
        assert after is not None, "the last step is always scored"
        return {
            "steps": state.global_step,
            "tokens": progress.tokens,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(progress.tokens / max(seconds, 1e-9), 2),
            "best_step": state.best_global_step if after < before else 0,
            "before": before,
            "after": after,
        }


def _spans(rows: Rows, name: str) -> list[list[list[int]]]:
    """The ranges of tokens in a column of conversations, row by row."""
    return [rows.value(name, index) for index in range(len(rows))]


def _digest(token_ids: Sequence[Sequence[int]]) -> str:
    """Of texts as token ids, in order."""
    return CacheKey.of("", "", torch.float32, token_ids).texts
