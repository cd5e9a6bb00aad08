"""What several teachers are worth together on held-out texts, whatever their tokenizers are.

At every byte of a text at which all of them have a token boundary, their probabilities of the stretch up to the next such byte are
mixed: -log Σ w_i·P_i(stretch | all before it). With one tokenizer a stretch is a token, and this is the mixture that the student is
trained on at temperature 1; across tokenizers it needs no map between vocabularies, and counts every byte once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from distillkit.evaluation.bits_per_byte import Scores
from distillkit.evaluation.lost_bits import PlacedText


@dataclass(frozen=True, eq=False)
class TeacherReading:
    """One text as one teacher scored it.

    Attributes:
        placed: where its scored tokens lie.
        nats: [tokens] float64, -log p of each.
    """

    placed: PlacedText
    nats: np.ndarray


def mixed_scores(
    readings: Sequence[Sequence[TeacherReading | None]], weights: Sequence[float], documents: Sequence[int]
) -> tuple[Scores, int]:
    """The scores of the mixture, and how many texts have no part in them.

    A teacher that does not read a text, or whose template leaves other bytes of it to be scored than the first reader's, is left
    out there, and the weights of the others are normalised again. `tokens` counts stretches.

    Args:
        readings: of each teacher, one for each text; None where it does not read it.
        weights: of the teachers; only their ratio counts.
        documents: the document of each text.
    """
    found, owners = np.unique(np.asarray(documents, dtype=np.int64), return_inverse=True)
    nll, sizes, counts = np.zeros(len(found)), np.zeros(len(found), np.int64), np.zeros(len(found), np.int64)
    left_out = 0
    for text, document in enumerate(owners.tolist()):
        there = [(own, weight) for of_one, weight in zip(readings, weights, strict=True) if (own := of_one[text])]
        there = [(own, weight) for own, weight in there if own.placed.text == there[0][0].placed.text]
        if not there:
            left_out += 1
            continue
        nats, size = mixed_stretches([own for own, _ in there], [weight for _, weight in there])
        nll[document] += nats.sum()
        sizes[document] += size
        counts[document] += len(nats)
    return Scores(found, nll, sizes, counts), left_out


def mixed_stretches(readings: Sequence[TeacherReading], weights: Sequence[float]) -> tuple[np.ndarray, int]:
    """([stretches] float64 nats, the bytes that they cover) of one text.

    Args:
        readings: of the same text, at least one.
        weights: of the teachers; only their ratio counts.
    """
    places = [np.append(own.placed.skipped, own.placed.ends) for own in readings]
    shared = reduce(np.intersect1d, places)
    if len(shared) < 2:
        return np.zeros(0), 0
    logs: list[np.ndarray] = []
    for own, ends, weight in zip(readings, places, weights, strict=True):
        # Tokens that together stand for a character may all end where it does: the last of them counts.
        upto = np.searchsorted(ends, shared, side="right") - 1
        upto[0] = 0 if ends[0] == shared[0] else upto[0]
        sums = np.append(0.0, np.cumsum(own.nats))[upto]
        logs.append(np.log(weight / sum(weights)) - np.diff(sums))
    return -np.logaddexp.reduce(logs), int(shared[-1] - shared[0])
