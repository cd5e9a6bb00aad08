"""Several teachers on held-out texts: held against products of probabilities, byte by byte."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distillkit.evaluation.lost_bits import PlacedText
from distillkit.evaluation.teacher_mixture import TeacherReading, mixed_scores, mixed_stretches

TEXT = "the cats"


def reading(ends: list[int], probabilities: list[float], *, skipped: int = 0, text: str = TEXT) -> TeacherReading:
    sizes = np.diff(ends, prepend=skipped)
    ids = np.zeros(len(ends), dtype=np.int64)
    return TeacherReading(PlacedText(text, skipped, sizes, ids, ids), -np.log(probabilities))


def test_stretches_between_shared_boundaries_are_mixed() -> None:
    one = reading([3, 4, 7, 8], [0.5, 0.25, 0.1, 0.9])
    other = reading([4, 6, 8], [0.2, 0.7, 0.3])
    nats, size = mixed_stretches([one, other], [3.0, 1.0])
    expected = [0.75 * 0.5 * 0.25 + 0.25 * 0.2, 0.75 * 0.1 * 0.9 + 0.25 * 0.7 * 0.3]
    np.testing.assert_allclose(np.exp(-nats), expected)
    assert size == len(TEXT)


def test_with_one_tokenizer_every_token_is_mixed_and_equal_teachers_are_one() -> None:
    ends, p, q = [3, 4, 7, 8], [0.5, 0.25, 0.1, 0.9], [0.1, 0.1, 0.8, 0.3]
    nats, _ = mixed_stretches([reading(ends, p), reading(ends, q)], [0.4, 0.6])
    np.testing.assert_allclose(np.exp(-nats), 0.4 * np.array(p) + 0.6 * np.array(q))
    nats, _ = mixed_stretches([reading(ends, p)] * 3, [0.2, 0.5, 0.3])
    np.testing.assert_allclose(nats, -np.log(p))


def test_what_one_teacher_cannot_predict_is_left_out() -> None:
    """It has no start token, so nothing predicts its first one; several tokens may end where their character does."""
    one = reading([3, 4, 7, 8], [0.5, 0.25, 0.1, 0.9])
    other = reading([4, 7, 7, 8], [0.2, 0.5, 0.4, 0.3], skipped=3)
    nats, size = mixed_stretches([one, other], [0.5, 0.5])
    np.testing.assert_allclose(np.exp(-nats), [0.5 * (0.25 + 0.2), 0.5 * (0.1 + 0.5 * 0.4), 0.5 * (0.9 + 0.3)])
    assert size == 5


def test_texts_are_summed_by_document_over_the_teachers_that_read_them() -> None:
    ours, theirs = reading([8], [0.5]), reading([8], [0.1])
    stranger = reading([9], [0.9], text="the  cats")
    scores, left_out = mixed_scores(
        [[ours, ours, None, ours], [theirs, None, None, stranger]], [0.25, 0.75], [4, 4, 6, 7]
    )
    assert left_out == 1
    assert scores.documents.tolist() == [4, 6, 7]
    np.testing.assert_allclose(scores.nll, [-math.log(0.2) - math.log(0.5), 0, -math.log(0.5)])
    assert (scores.bytes.tolist(), scores.tokens.tolist()) == ([16, 0, 8], [2, 0, 1])
    assert scores.bits_per_byte == pytest.approx(scores.nll.sum() / math.log(2) / 24)
