"""The student `teacher:auto`: the race of `shapes`, run with the texts and the teacher of a run while its data are prepared.

Everything lies in shapes/ of the run: journal.jsonl, which stays, and while the race goes on the texts (data/) and the
students that are in it, as they are cut (starts/). An attempt that is killed goes on from the journal.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from distillkit.console import Console, format_duration
from distillkit.data.prepared_parts import PreparedPart
from distillkit.device.precision import choose_compute
from distillkit.errors import NotFiniteError, UsageError
from distillkit.models.cut_shape import cut_shape
from distillkit.models.loading import load_model
from distillkit.models.located import LocatedModel
from distillkit.models.locating import locate
from distillkit.models.model_files import read_config
from distillkit.models.references import parse_reference
from distillkit.models.save_errors import plain_save_errors
from distillkit.models.shape import ModelShape, model_shape
from distillkit.models.student_files import save_student
from distillkit.run.context import TrainingContext
from distillkit.run.directory import STARTS, RunDirectory
from distillkit.run.pair import ModelPair
from distillkit.settings import declared
from distillkit.settings.parameters import Parameters
from distillkit.storage import (
    explained_write_errors,
    fingerprint_of,
    make_folder,
    read_json,
    remove_tree,
    write_folder,
    write_json,
)
from distillkit.teachers.cut_student import CutStudent
from distillkit.training.decisions import uses_white_box_teacher
from distillkit.training.inputs import true_texts
from distillkit.tuning.halving import Amount, Limits
from distillkit.tuning.journal import Journal
from distillkit.tuning.search import limits_of
from distillkit.tuning.shapes import CANDIDATES, UNTRAINED, Candidate, Shape, ShapeChoice, candidates, choose_shape
from distillkit.tuning.texts import open_trials
from distillkit.tuning.trial import Trials
from distillkit.wording import counted

# Optimizer steps of the longest trials; also never more than one epoch. All trials of a race are then at most five times as long.
LONGEST_STEPS = 200
_MODEL, _RECORD = "model", "cut.json"
# Settings of the training that the race does without, or that make no difference to it.
_IRRELEVANT = ("checkpoint_interval", "save_best_model", "teacher_cache", "epochs", "tune_teacher")
_OF_THE_CUT = ("seed", "layer_choice", "student_start")

CutInto = Callable[[ModelPair], CutStudent]
"""A pair whose student has a known shape -> how that student begins."""


@dataclass
class _RaceDirectory(RunDirectory):
    """The run itself, with the texts that the race has: those of the run are written when the winner is known."""

    @property
    def data(self) -> Path:
        return self.shapes / "data"


@dataclass(frozen=True)
class RaceTexts:
    """What a race trains on and scores by.

    Attributes:
        parts: examples of `train` and `validation`.
        stats: data/stats.json as it will be written.
    """

    parts: dict[str, PreparedPart]
    stats: dict[str, Any]

    def digest(self) -> str:
        """SHA-256 of all texts as both models read them."""
        names = ("text", "student_ids", "teacher_ids")
        return fingerprint_of(
            {
                part: [
                    fingerprint_of([prepared.rows.value(name, index) for name in names])
                    for index in range(len(prepared))
                ]
                for part, prepared in self.parts.items()
            }
        )


class ShapeRace:
    """The race of one run.

    Args:
        pair: its student is `teacher:auto`.
        config: of the run; its `target_parameters` are given.
        run: the run, locked by this process.
        texts: its training and validation part.
        cut: how a student of a known shape begins.
        console: where it is told.
    """

    def __init__(
        self, pair: ModelPair, config: Parameters, run: RunDirectory, texts: RaceTexts, cut: CutInto, console: Console
    ) -> None:
        if config.target_parameters is None:
            raise AssertionError("teacher:auto without target_parameters passed the settings")
        self.pair = pair
        self.config = race_config(config)
        self.target = config.target_parameters
        self.run_directory = _RaceDirectory(run.path, run.manifest)
        self.texts = texts
        self.cut = cut
        self.console = console
        self.journal = self._open_journal()

    def winner(self) -> tuple[ShapeChoice, CutStudent]:
        """Race the shapes; what an earlier attempt has finished is not done again.

        Raises:
            UsageError: no shape of the teacher has so many parameters.
            Interrupted: a signal arrived; what is finished stays.
            DistillkitError: every shape diverged, or something cannot be written.
        """
        self._say_what_follows()
        self._write_texts()
        choice = choose_shape(
            self._found, self.target, self._limits(), self.journal, self._score, self._train, self.console.info
        )
        columns = ["student", "parameters", "bits per byte as cut", "trained", "texts"]
        rows = [(name, f"{count:,}", cut, trained, f"{texts:,}") for name, count, cut, trained, texts in choice.rows()]
        self.console.table("Shapes", columns, rows, numeric=(1, 2, 3, 4))
        self.console.info(f"{choice.explanation()}; the race took {format_duration(self.journal.seconds)}")
        cut = self._started(choice.winner.shape)
        return choice, dataclasses.replace(cut, record={**cut.record, "shapes": choice.record()})

    def tidy(self) -> None:
        """Delete everything but the journal.

        Raises:
            DistillkitError: it cannot be deleted.
        """
        with explained_write_errors(self.run_directory.shapes):
            remove_tree(self.run_directory.data)
            remove_tree(self._starts)

    def _say_what_follows(self) -> None:
        found = self._found
        if len(found) < 2:
            return
        trained, limits = min(CANDIDATES, len(found)), self._limits()
        weights = "" if self.config.box_type == "white" else ", on the true texts: the teacher's are not written yet"
        self.console.info(
            f"{len(found)} shapes have nearly {self.target:,} parameters: each is cut and scored, the best {trained} are trained, "
            f"by halving, the longest on {counted(limits.texts, 'text')}{weights}"
        )
        if self.journal.trials:
            self.console.info(f"{len(self.journal.trials)} results of an earlier attempt are used again")

    # --- shapes -----------------------------------------------------------------------------------------------------

    @cached_property
    def _found(self) -> list[Candidate]:
        """The shapes that race, the largest first."""
        return candidates(self._whole.layers, self.target, self._parameters)

    @cached_property
    def _teacher_config(self) -> dict[str, Any]:
        return read_config(self.pair.teacher.folder)

    @cached_property
    def _whole(self) -> ModelShape:
        shape = model_shape(self._teacher_config)
        if shape is None:
            raise UsageError(
                f"{self.pair.teacher.reference.text}: its config.json does not tell its size, so no shape can be looked for",
                hint="say the shape: --student-model teacher:10",
            )
        return shape

    def _parameters(self, shape: Shape) -> int | None:
        """Of a shape; None where the teacher cannot be cut to it, or where another width comes to the same."""
        width = (shape.ffn, shape.heads, shape.hidden)
        if width not in self._widths:
            own = self._narrowed(shape)
            known = any(
                other is not None and own is not None and other.config == own.config for other in self._widths.values()
            )
            self._widths[width] = None if known else own
        narrowed = self._widths[width]
        cut = None if narrowed is None else narrowed.with_layers(shape.layers)
        if cut is None or (cut.parameters <= self.target and self._located(shape) is None):
            return None
        return cut.parameters

    @cached_property
    def _widths(self) -> dict[tuple[float, float, float], ModelShape | None]:
        return {}

    def _narrowed(self, shape: Shape) -> ModelShape | None:
        try:
            return cut_shape(
                self._teacher_config, parse_reference(dataclasses.replace(shape, layers=self._whole.layers).reference)
            )
        except UsageError:
            return None  # An architecture that is not narrowed, or sizes that it does not allow.

    def _located(self, shape: Shape) -> LocatedModel | None:
        """The student of a shape; None where its layers cannot be saved."""
        reference = parse_reference(shape.reference)
        try:
            return locate(
                reference, self.console, trust_remote_code=self.config.trust_remote_code, teacher=self.pair.teacher
            )
        except UsageError:
            return None

    # --- students ---------------------------------------------------------------------------------------------------

    @property
    def _starts(self) -> Path:
        return self.run_directory.shapes / STARTS

    def _pair_of(self, shape: Shape) -> ModelPair:
        """The pair with the student of a shape, whose start is not known yet."""
        reference = parse_reference(shape.reference)
        student = dataclasses.replace(self.pair.student, reference=reference)
        made = dataclasses.replace(self.pair, student=student, layers=None, start=None)
        made.take_from(self.texts.stats)
        return made

    def _start_folder(self, shape: Shape) -> Path:
        return self._starts / f"{shape.layers}-{shape.ffn:g}-{shape.heads:g}-{shape.hidden:g}"

    def _started(self, shape: Shape) -> CutStudent:
        """How the student of a shape begins, with its weights: cut now, or where it was cut before, read."""
        pair, folder = self._pair_of(shape), self._cut_on_disk(shape)
        noted = read_json(folder / _RECORD)
        model = None
        if (folder / _MODEL).is_dir():
            located = LocatedModel(pair.student.reference, folder / _MODEL, options=pair.student.options)
            model = load_model(
                located, dtype=torch.float32, trust_remote_code=self.config.trust_remote_code, console=self.console
            )
        return CutStudent(noted["layers"], model, noted["record"], noted["seconds"], noted["remarks"])

    def _cut_on_disk(self, shape: Shape) -> Path:
        """The folder of a student as it is cut; made where it is not there."""
        folder = self._start_folder(shape)
        if not folder.is_dir():
            pair = self._pair_of(shape)
            cut = self.cut(pair)

            def fill(place: Path) -> None:
                noted = {"layers": cut.layers, "record": cut.record, "seconds": cut.seconds, "remarks": cut.remarks}
                write_json(place / _RECORD, noted)
                if cut.model is not None:
                    (place / _MODEL).mkdir()
                    with plain_save_errors(place):
                        save_student(
                            place / _MODEL,
                            cut.model,
                            pair.student.folder,
                            trust_remote_code=self.config.trust_remote_code,
                        )

            write_folder(folder, fill, cut.weight_bytes)
        return folder

    def _trials(self, shape: Shape) -> Trials:
        """Trials of the student of a shape; the teacher's part is shared."""
        folder, pair = self._cut_on_disk(shape), self._pair_of(shape)
        pair.layers = read_json(folder / _RECORD)["layers"]
        pair.start = folder / _MODEL if (folder / _MODEL).is_dir() else None
        opened = self._opened
        return Trials(opened.context, opened.rows, opened.source, opened.folder, pair.load_student)

    def _keep(self, shapes: Sequence[Shape]) -> None:
        """Delete the students that are out of the race: only so many are on the disk at a time."""
        kept = {self._start_folder(shape).name for shape in shapes}
        for folder in self._starts.iterdir() if self._starts.is_dir() else ():
            if folder.name not in kept:
                with explained_write_errors(folder):
                    remove_tree(folder)

    # --- the race ---------------------------------------------------------------------------------------------------

    def _score(self, shape: Shape) -> float:
        try:
            score = self._trials(shape).start_score()
        except NotFiniteError:
            score = math.inf
        known = [(trial.score, Shape(**trial.settings)) for trial in self.journal.trials if trial.amount == UNTRAINED]
        best = sorted([*known, (score, shape)], key=lambda item: item[0])[:CANDIDATES]
        self._keep([shape for _, shape in best])
        return score

    def _train(self, shape: Shape, amount: Amount) -> float:
        self._keep([Shape(**settings) for settings in self.journal.rungs[-1].candidates])
        start = self.journal.score(shape.as_settings(), UNTRAINED)
        return self._trials(shape).run({}, amount, shape.reference, start).score

    @cached_property
    def _opened(self) -> Trials:
        """The rows and the teacher's part, which all shapes share."""
        run, folder = self.run_directory, self.run_directory.shapes
        # Whatever is decided by the student's size is decided for the largest one.
        pair = self._pair_of(self._found[0].shape)
        encoders = pair.text_encoders(self.config)
        context = TrainingContext(self.config, run, pair, encoders, choose_compute(self.config), self.console)
        if uses_white_box_teacher(self.config):
            return open_trials(context, folder)
        return Trials(context, true_texts(context), None, folder)

    def _limits(self) -> Limits:
        per_step = self.config.batch_size * self.config.gradient_accumulation
        return limits_of(min(len(self.texts.parts["train"]), LONGEST_STEPS * per_step), 1, per_step)

    def _write_texts(self) -> None:
        def fill(folder: Path) -> None:
            for name, prepared in self.texts.parts.items():
                shutil.copytree(prepared.folder, folder / name)

        write_folder(self.run_directory.data, fill)

    def _open_journal(self) -> Journal:
        """The journal so far; a new one where texts, teacher or settings are not what they were."""
        folder, config = self.run_directory.shapes, self.config
        values = vars(config)
        names = [name for name in declared.fields() if declared.facts(name).affects == "distill"]
        settings = {
            name: json.dumps(values[name]) for name in [*names, *_OF_THE_CUT, "box_type"] if name not in _IRRELEVANT
        }
        fingerprint = fingerprint_of([self.pair.teacher.fingerprint(), self.texts.digest(), settings, self.target])
        path = folder / "journal.jsonl"
        if not Journal.belongs(path, fingerprint):
            self.console.warn(f"{path} is of other texts or other settings: the race begins anew")
            with explained_write_errors(folder):
                remove_tree(folder)
        make_folder(folder)
        journal = Journal.open(path, fingerprint)
        if journal.dropped:
            self.console.warn(f"{path}: {journal.dropped} damaged lines are ignored; what they told is found out again")
        return journal


def race_config(config: Parameters) -> Parameters:
    """The configuration that the trials of a race have: one epoch, and the teacher as it came; of several the first one, which
    the student is cut from. A black-box teacher has not written anything yet: there they train on the true texts alone."""
    weights = {"alpha": 0.0, "beta": 1.0} if config.box_type == "black" else {}
    return dataclasses.replace(config, epochs=1, tune_teacher=0, extra_teachers=None, teacher_weights=None, **weights)
