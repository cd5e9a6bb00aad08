"""The bits of every document of a comparison under the models of every run: as `validate` has recorded them, else scored now."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distillkit.comparing.chosen_texts import ChosenTexts
from distillkit.comparing.opened import OpenedRun
from distillkit.comparing.run_models import kept_student_problem
from distillkit.comparing.score_again import Rescoring
from distillkit.console import Console
from distillkit.errors import UsageError
from distillkit.evaluation.bits_per_byte import Scores
from distillkit.evaluation.speed import ModelSize

MODELS = ("before", "control", "after", "teacher")


@dataclass(frozen=True, eq=False)
class Measured:
    """What a comparison is made of.

    Attributes:
        scores: of each run, model to scores; all students are scored by the same bytes of the same documents.
        sizes: of each run, of the models that were loaded.
        scored_again: of each run, whether it was scored now.
        unread: texts that were left out because a model cannot read them.
        notes: what could not be scored.
    """

    scores: list[dict[str, Scores]]
    sizes: list[Mapping[str, ModelSize]]
    scored_again: list[bool]
    unread: int = 0
    notes: list[dict[str, str]] = field(default_factory=list)


def measure(runs: Sequence[OpenedRun], texts: ChosenTexts, console: Console, *, teachers: bool = True) -> Measured:
    """The scores of all runs on the same bytes.

    What `validate` has recorded is used where every run has it of the same bytes. Else all are scored now, in one number
    format, so that the same weights have the same score; a run whose student is gone keeps what was recorded.

    Args:
        teachers: whether teachers are scored too where something has to be scored.

    Raises:
        PreconditionError: a student that has to be scored is not there any more.
        UsageError: nothing of the texts can be read by all students.
        DistillkitError: a score is no number; memory ran out.
        Interrupted: a signal arrived.
    """
    recorded = [
        None if numbers is None else recorded_scores(run.details, numbers)
        for run, numbers in zip(runs, texts.numbers, strict=True)
    ]
    known = [of for of in recorded if of is not None]
    if len(known) == len(runs) and len({tuple(of["after"].bytes.tolist()) for of in known}) == 1:
        return _without_empty(Measured(known, [{}] * len(runs), [False] * len(runs)))
    return _scored_again(runs, texts, recorded, console, teachers)


def recorded_scores(details: Mapping[str, Any], numbers: Sequence[int]) -> dict[str, Scores] | None:
    """What validation_details.json has of these documents; None where it lacks one.

    Args:
        details: its content, {} where there is none.
        numbers: of the documents in the run, in the order in which they are wanted.
    """
    stored = details.get("documents") or {}
    places: dict[int, int] = {number: place for place, number in enumerate(stored.get("document") or ())}
    if "after" not in (stored.get("bits") or {}) or any(number not in places for number in numbers):
        return None
    chosen = np.array([places[number] for number in numbers])
    return {
        name: scores_of(np.array(stored["bits"][name])[chosen], np.array(stored["bytes"][name], dtype=np.int64)[chosen])
        for name in MODELS
        if name in stored["bits"]
    }


def scores_of(bits: np.ndarray, sizes: np.ndarray) -> Scores:
    """Scores of documents that count from 0.

    Args:
        bits: [D] float64.
        sizes: [D] int64, bytes.
    """
    return Scores(np.arange(len(bits)), bits * math.log(2), sizes, np.zeros(len(bits), dtype=np.int64))


def _scored_again(
    runs: Sequence[OpenedRun],
    texts: ChosenTexts,
    recorded: Sequence[dict[str, Scores] | None],
    console: Console,
    teachers: bool,
) -> Measured:
    parts = [(place, piece) for place, document in enumerate(texts.documents) for piece in document.pieces]
    count = len(texts.documents)
    gone = [kept_student_problem(run) for run in runs]
    rescoring = Rescoring.of(
        [run for run, error in zip(runs, gone, strict=True) if error is None], runs[0], console, teachers=teachers
    )
    readings = rescoring.read(parts)
    if rescoring.runs and not readings.parts:
        raise UsageError(
            "no held-out text can be read by all students of the runs",
            hint="the result of prepare-data tells what each tokenizer cannot read; name another run first",
        )
    sizes = readings.bytes_of(count)
    for error, of in zip(gone, recorded, strict=True):
        if error is not None and (of is None or not np.array_equal(of["after"].bytes, sizes)):
            raise error
    found = iter(rescoring.scores(readings))
    scores: list[dict[str, Scores]] = []
    of_models: list[Mapping[str, ModelSize]] = []
    for run, error, of in zip(runs, gone, recorded, strict=True):
        if error is not None and of is not None:
            rescoring.notes.append({"note": "student_gone", "run": run.name})
            scores.append(of)
            of_models.append({})
        else:
            own = next(found)
            scores.append({name: _spread(one, count) for name, one in own.scores.items()})
            of_models.append(own.sizes)
    again = [error is None for error in gone]
    return _without_empty(Measured(scores, of_models, again, readings.unread, rescoring.notes))


def _spread(scores: Scores, count: int) -> Scores:
    """Scores of all documents; those that are not among `scores` have nothing."""
    bits, sizes = np.zeros(count), np.zeros(count, dtype=np.int64)
    bits[scores.documents] = scores.nll / math.log(2)
    sizes[scores.documents] = scores.bytes
    return scores_of(bits, sizes)


def _without_empty(measured: Measured) -> Measured:
    """The same without documents of which a student scores nothing."""
    used = np.logical_and.reduce([of["after"].bytes > 0 for of in measured.scores])
    scores = [
        {name: scores_of(one.nll[used] / math.log(2), one.bytes[used]) for name, one in of.items()}
        for of in measured.scores
    ]
    return Measured(scores, measured.sizes, measured.scored_again, measured.unread, measured.notes)
