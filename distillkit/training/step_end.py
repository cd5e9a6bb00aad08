"""What every training does at the end of a step: the display goes on, the last step is scored and saved, a signal is obeyed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from distillkit.console import ProgressHandle


class StepEnd(TrainerCallback):
    """Advances the display, ends with a score and a checkpoint, and stops for a signal after committing.

    Args:
        display: the progress display.
        signal_received: the number of a signal that asks to stop, if there is one.
    """

    def __init__(self, display: ProgressHandle, signal_received: Callable[[], int | None]) -> None:
        self.display = display
        self.signal_received = signal_received

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.display.update(completed=state.global_step)
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        if self.signal_received() is not None:
            control.should_save = control.should_training_stop = True
