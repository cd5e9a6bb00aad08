"""What models of runs make of texts that they were not measured on, or not in the same cut."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from distillkit.comparing.opened import OpenedRun
from distillkit.comparing.readings import Readings, read_all
from distillkit.comparing.run_models import StudentModels, TeacherModel, compute_for, pair_of
from distillkit.console import Console
from distillkit.device.memory import explained_memory_errors
from distillkit.device.precision import Compute
from distillkit.errors import DistillkitError, Interrupted, first_line
from distillkit.evaluation.bits_per_byte import ScoredText, Scores, score
from distillkit.evaluation.speed import ModelSize, model_size


@dataclass(frozen=True, eq=False)
class ScoredAgain:
    """What the models of a run came to.

    Attributes:
        scores: of each model; the documents count from 0, those of which nothing is scored are left out.
        sizes: of each model.
    """

    scores: dict[str, Scores]
    sizes: dict[str, ModelSize]


@dataclass(frozen=True, eq=False)
class Rescoring:
    """The models of some runs, ready to be scored on the same texts.

    Args:
        runs: those to be scored.
        compute: device and number formats of students: fp32, in which a score does not depend on how texts are put together.
        of_teachers: the same of teachers, in the format that they usually have here.
        teachers: whether teachers are scored too.

    Attributes:
        notes: what could not be scored and why: `note`, `run`, and what the words of the note ask for.
    """

    runs: list[OpenedRun]
    students: list[StudentModels]
    compute: Compute
    of_teachers: Compute
    console: Console
    teachers: bool
    notes: list[dict[str, str]] = field(default_factory=list)
    _teachers_known: dict[Any, tuple[Scores, ModelSize]] = field(default_factory=dict)

    @classmethod
    def of(cls, runs: Sequence[OpenedRun], first: OpenedRun, console: Console, *, teachers: bool) -> Rescoring:
        """Open the students of these runs.

        Args:
            first: the run whose configuration decides on which device.
        """
        students = [StudentModels(run, console) for run in runs]
        formats = compute_for(first, "fp32"), compute_for(first, "auto")
        return cls(list(runs), students, *formats, console, teachers)

    def read(self, parts: Sequence[tuple[int, str]]) -> Readings:
        """The texts as the students read them, all by the same bytes.

        Args:
            parts: (document, text) of each.
        """
        return read_all(parts, [student.reader for student in self.students])

    def scores(self, readings: Readings) -> list[ScoredAgain]:
        """Score every model that is here, one at a time, in the order of the runs.

        Raises:
            PreconditionError: a model cannot be loaded.
            DistillkitError: a score is no number; memory ran out.
            Interrupted: a signal arrived.
        """
        with explained_memory_errors():
            return [
                self._of_run(run, student, texts, readings)
                for run, student, texts in zip(self.runs, self.students, readings.texts, strict=True)
            ]

    def _of_run(
        self, run: OpenedRun, student: StudentModels, texts: Sequence[ScoredText], readings: Readings
    ) -> ScoredAgain:
        pair = None
        try:
            pair = pair_of(run, self.console)
        except Interrupted:
            raise
        except (DistillkitError, OSError, ValueError, KeyError) as error:
            # The student of the run is all there; what it came from may be gone, or what the run knew of it.
            self._note("origin_gone", run, why=first_line(error))
        found = ScoredAgain({}, {})
        for name, load in student.loaders(pair).items():
            found.scores[name], found.sizes[name] = self._score(load(), texts, f"{run.short}, {name}")
        if pair is not None and self.teachers:
            teacher = TeacherModel(run, pair, self.of_teachers, self.console)
            if teacher.problem is not None:
                self._note(f"teacher_{teacher.problem.replace(' ', '_')}", run)
            elif (of_teacher := self._teacher(run, teacher, readings)) is not None:
                found.scores["teacher"], found.sizes["teacher"] = of_teacher
        return found

    def _teacher(
        self, run: OpenedRun, teacher: TeacherModel, readings: Readings
    ) -> tuple[Scores, ModelSize] | None:  # fmt: skip
        if teacher.key in self._teachers_known:
            return self._teachers_known[teacher.key]
        own = read_all(readings.parts, [teacher.reader])
        wanted = {text.document for text in readings.texts[0]}
        alike = teacher.reader.conversations is None or np.array_equal(
            own.bytes_of(max(wanted) + 1), readings.bytes_of(max(wanted) + 1)
        )
        if own.parts != readings.parts or not alike:
            self._note("teacher_reads_otherwise", run)
            return None
        found = self._score(teacher.load(), own.texts[0], f"{run.short}, teacher")
        self._teachers_known[teacher.key] = found
        return found

    def _score(self, model: nn.Module, texts: Sequence[ScoredText], what: str) -> tuple[Scores, ModelSize]:
        """Score a model in the format of its weights; its memory is free afterwards."""
        size = model_size(model)
        model.to(self.compute.device).eval()
        with self.console.progress(f"scoring {what}", total=len(texts), unit="texts") as progress:
            found = score(model, texts, device=self.compute.device, progress=progress)
        del model
        gc.collect()
        return found, size

    def _note(self, note: str, run: OpenedRun, **words: str) -> None:
        self.notes.append({"note": note, "run": run.name, **words})
