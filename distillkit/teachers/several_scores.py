"""Several teachers on the held-out texts: each by itself, one in memory at a time, and all of them as the mixture."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillkit.console import Console
from distillkit.data.stored_rows import Rows, StoredRows, TakenRows
from distillkit.data.text_encoder import TextEncoder
from distillkit.device.precision import Compute
from distillkit.evaluation.bits_per_byte import Scores, score
from distillkit.evaluation.held_out import scored_texts
from distillkit.evaluation.placing import placed_texts
from distillkit.evaluation.speed import model_size
from distillkit.evaluation.teacher_mixture import TeacherReading, mixed_scores
from distillkit.run.directory import RunDirectory
from distillkit.run.further_teachers import FurtherTeacher, further_rows, open_further
from distillkit.run.pair import ModelPair
from distillkit.settings.parameters import Parameters
from distillkit.settings.teacher_values import teacher_weights
from distillkit.teachers.choices import choose_streaming
from distillkit.teachers.spread import teacher_memory
from distillkit.teachers.whole_model import whole_teacher


@dataclass(frozen=True)
class SeveralScores:
    """What came of it.

    Attributes:
        mixture: the scores of all together.
        teachers: of each the name, the weight and the scores, the first one first.
        further: figures of the others besides their scores: parameters and bytes, and the texts that each does not read.
        left_out: texts that none of them reads.
    """

    mixture: Scores
    teachers: list[tuple[str, float, Scores]]
    further: list[dict[str, Any]]
    left_out: int


def several_scores(
    config: Parameters, run: RunDirectory, pair: ModelPair, first: Scores, test: StoredRows, compute: Compute, console: Console
) -> SeveralScores:  # fmt: skip
    """Score the teachers besides the first on the test part, and the mixture of all.

    Args:
        first: the scores of the first teacher on `test`, with those of every token.

    Raises:
        ValueError: they are without.
        PreconditionError: a teacher is not the model that the data were prepared for.
        NotFiniteError: a text has no finite likelihood.
        Interrupted: a signal arrived.
    """
    if first.by_token is None:
        raise ValueError("the mixture needs the score of every token")
    weights = teacher_weights(config)
    everything = list(range(len(test)))
    readings = [_readings(test, everything, pair.text_encoders(config).teacher, first.by_token)]
    named, figures = [(pair.teacher.reference.text, weights[0], first)], []
    for teacher, weight in zip(open_further(pair, config, run, console), weights[1:], strict=True):
        rows = further_rows(run.data, teacher.number, "test")
        read = np.flatnonzero(rows.numbers("teacher_tokens")).tolist()
        scores, size = _score(config, teacher, TakenRows(rows, read), compute, console)
        assert scores.by_token is not None
        readings.append(_readings(rows, read, teacher.encoders.teacher, scores.by_token))
        named.append((teacher.pair.teacher.reference.text, weight, scores))
        figures.append({**size, "texts_not_read": len(rows) - len(read)})
    mixture, left_out = mixed_scores(readings, weights, test.numbers("document").tolist())
    return SeveralScores(mixture, named, figures, left_out)


def _score(
    config: Parameters, teacher: FurtherTeacher, rows: Rows, compute: Compute, console: Console
) -> tuple[Scores, dict[str, int]]:
    pair = teacher.pair
    model = whole_teacher(pair, compute, choose_streaming(config, teacher_memory(pair, compute)), console, pair.teacher)
    texts = scored_texts(rows, teacher.encoders.teacher, "teacher")
    with console.progress(f"validating teacher {teacher.number}", total=len(texts), unit="texts") as progress:
        scores = score(model, texts, device=compute.device, progress=progress)
    size = model_size(model)
    del model
    gc.collect()
    return scores, {"parameters": size.parameters, "size_bytes": size.bytes}


def _readings(
    rows: StoredRows, read: Sequence[int], encoder: TextEncoder, nats: Sequence[np.ndarray]
) -> list[TeacherReading | None]:
    """Of every text.

    Args:
        rows: all texts.
        read: the places of those that the teacher reads.
        nats: of these, of each scored token.
    """
    placed = placed_texts([rows[index] for index in read], encoder, "teacher")
    found: list[TeacherReading | None] = [None] * len(rows)
    for index, text, of_text in zip(read, placed, nats, strict=True):
        if text is not None and len(of_text):
            found[index] = TeacherReading(text, of_text)
    return found
