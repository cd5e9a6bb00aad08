"""validation_details.json: what validation.json sums up, by document and by where the bits are lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from distillkit.data.stored_rows import StoredRows
from distillkit.data.text_encoder import TextEncoders
from distillkit.evaluation.bits_per_byte import Scores
from distillkit.evaluation.lost_bits import DIVISIONS, lost_bits
from distillkit.evaluation.placing import placed_texts

FORMAT = 1


def token_counts(texts: Iterable[Sequence[int] | np.ndarray]) -> np.ndarray:
    """[highest id + 1] int64: how often each token stands in these texts, or batches of texts."""
    counts = np.zeros(1, dtype=np.int64)
    for ids in texts:
        found = np.bincount(np.asarray(ids, dtype=np.int64), minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    return counts


def validation_details(
    scores: Mapping[str, Scores], test: StoredRows, seen: np.ndarray, encoders: TextEncoders
) -> dict[str, Any]:
    """The content of validation_details.json.

    Args:
        scores: of the models that were measured on `test`: before, after, teacher, control.
        seen: [V] how often each of the student's tokens stands in the training texts.
    """
    examples = [test[index] for index in range(len(test))]
    placed = {"student": placed_texts(examples, encoders.student, "student")}
    by_token = {name: of_model.by_token for name, of_model in scores.items() if of_model.by_token is not None}
    if "teacher" in by_token:
        placed["teacher"] = placed_texts(examples, encoders.teacher, "teacher")
    totals, left_out = lost_bits(placed, by_token, seen)
    return {
        "format": FORMAT,
        "documents": {
            "document": scores["after"].documents.tolist(),
            "bytes": {name: of_model.bytes.tolist() for name, of_model in scores.items()},
            "bits": {name: (of_model.nll / math.log(2)).tolist() for name, of_model in scores.items()},
        },
        "lost": {division: {name: total.record(division) for name, total in totals.items()} for division in DIVISIONS},
        "texts_left_out": left_out,
    }
