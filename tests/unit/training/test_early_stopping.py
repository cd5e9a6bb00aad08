"""When a training ends early: by the scores alone, the first of which does not count."""

from __future__ import annotations

import pytest

from distillkit.training.early_stopping import EarlyStopping, scores_since_best


@pytest.mark.parametrize(
    ("scores", "since"),
    [
        ([], 0),
        ([1.0], 0),
        ([1.0, 9.0], 0),
        ([1.0, 3.0, 2.0], 0),
        ([1.0, 2.0, 3.0], 1),
        ([1.0, 2.0, 2.0, 2.5], 2),
        ([1.0, 2.0, 3.0, 1.5, 1.6], 1),
    ],
)
def test_scores_since_the_best(scores: list[float], since: int) -> None:
    history: list[dict[str, float]] = [
        {"step": 5 * number, "eval_bits_per_byte": value} for number, value in enumerate(scores)
    ]
    history.insert(1, {"step": 2, "loss": 0.1})
    assert scores_since_best(history) == since
    for patience in (1, 2):
        assert EarlyStopping(patience).reached(history) is (since >= patience)
    assert not EarlyStopping(0).reached(history)
