"""`--early-stopping-patience`: a training that no longer gets better ends early.

Everything is told by the scores that the Trainer's own state holds, so that an attempt that goes on decides as an undisturbed one
would, also where the last thing that it did was to stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import TrainerControl

SCORE = "eval_bits_per_byte"


def scores_since_best(history: Sequence[Mapping[str, Any]]) -> int:
    """How many scores in a row are no better than the best one before them.

    The score at the start does not count: the best student is one that was trained.

    Args:
        history: `TrainerState.log_history`.
    """
    scores = [line[SCORE] for line in history if SCORE in line and line.get("step", 0) > 0]
    if not scores:
        return 0
    return len(scores) - 1 - scores.index(min(scores))


@dataclass(frozen=True)
class EarlyStopping:
    """When a training ends early.

    Attributes:
        patience: so many scores in a row without a new best one; 0: never.
    """

    patience: int

    def reached(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a training with these scores ends."""
        return self.patience > 0 and scores_since_best(history) >= self.patience

    def ended(self, checkpoint: Path) -> bool:
        """Whether the training of a checkpoint ended with it."""
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        return self.reached(state.log_history)


NEVER = EarlyStopping(0)


class StopEarly(TrainerCallback):
    """Ends the training after the score, and the checkpoint of the same step."""

    def __init__(self, stopping: EarlyStopping) -> None:
        self.stopping = stopping

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.stopping.reached(state.log_history):
            control.should_save = control.should_training_stop = True
