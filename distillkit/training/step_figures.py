"""What the steps of a training add up to: its lines in metrics.jsonl, what the display shows, and what is counted for the end."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from distillkit.console import ProgressHandle, format_bytes
from distillkit.device.memory import peak_memory_bytes
from distillkit.processes.group import Group
from distillkit.teachers.protocol import TeacherSource
from distillkit.training.metrics_log import MetricsLog
from distillkit.training.objectives import Objective
from distillkit.training.on_policy_schedule import NO_SHARE, EvenShare
from distillkit.training.progress import Progress

_IN_A_LINE = ("loss", "soft_loss", "hard_loss", "on_policy_loss", "learning_rate", "grad_norm")


class StepFigures:
    """The sums of all processes' steps, earlier attempts included.

    Args:
        progress: the sums so far; brought up to date here.
        metrics_log, display: where figures go.
        objective: what counts the teacher's probability that the student has tokens for.
        teacher: what counts the teacher's tokens and time; None where there is none.
        on_policy: which steps are on-policy.
        group: the processes that train together. Those other than 0 hold what they have added themselves.
    """

    def __init__(
        self,
        progress: Progress,
        metrics_log: MetricsLog,
        display: ProgressHandle,
        objective: Objective,
        teacher: TeacherSource | None,
        group: Group,
        on_policy: EvenShare = NO_SHARE,
    ) -> None:
        self.on_policy = on_policy
        self.progress, self.metrics_log, self.display = progress, metrics_log, display
        self.objective, self.teacher, self.group = objective, teacher, group
        self._seconds_before = progress.seconds
        self._began = time.monotonic()
        # What this process has added since `progress` was last brought up to date for all; alone it is `progress` itself.
        self._own = progress if group.alone else Progress()
        if group.leads:
            if progress.rows:
                objective.mass.restore(progress.mapped, progress.rows)
            if teacher is not None:
                teacher.restore_totals(progress.teacher_tokens, progress.teacher_seconds)
        self._mass_before = objective.mass.mapped, objective.mass.rows

    def seconds_so_far(self) -> float:
        """Wall time of training, attempts that were interrupted included up to their last checkpoint."""
        return self._seconds_before + time.monotonic() - self._began

    def add(self, *, soft: float, hard: float, loss: float, targets: int, sampled: bool = False) -> None:
        """Add a micro-batch's share of the means over its step, and its target tokens.

        Args:
            sampled: the student wrote it: what it says to its own tokens is no hard loss.
        """
        own = self._own
        if sampled:
            own.sampled_sum += soft
        else:
            own.soft_sum += soft
            own.hard_sum += hard
        own.loss_sum += loss
        own.tokens += targets

    def loss_line(
        self, step: int, epoch: float, logs: Mapping[str, float], changing: Mapping[str, float], *, soft: bool
    ) -> dict[str, float]:
        """Write the line of the steps since the last one to metrics.jsonl, show it, and give `logs` with the loss terms.

        Args:
            logs: of the Trainer. It has forgotten the steps before it was resumed, so its own loss will not do.
            changing: weights and temperature of the last step, where they change over the training.
            soft: whether there is a soft loss to show.
        """
        self.bring_up_to_date()
        progress = self.progress
        steps = max(1, step - progress.logged_step)
        own = self.on_policy.count(step) - self.on_policy.count(progress.logged_step)
        means = {"loss": progress.loss_sum / steps}
        if steps > own:
            means["soft_loss"], means["hard_loss"] = (
                total / (steps - own) for total in (progress.soft_sum, progress.hard_sum)
            )
        else:
            changing = {name: value for name, value in changing.items() if name != "alpha"}  # no step had it
        if own:
            means["on_policy_loss"] = progress.sampled_sum / own
        progress.soft_sum = progress.hard_sum = progress.loss_sum = progress.sampled_sum = 0.0
        progress.logged_step = step
        found = {**logs, **means}
        if changing.get("alpha") == 0:
            found.pop("soft_loss", None)  # a term that has lost its weight is not computed
        if not math.isfinite(found.get("grad_norm", 0.0)):
            del found["grad_norm"]  # fp16: the scaler skips this step; JSON has no infinity
        seconds = self.seconds_so_far()
        self.metrics_log.append(
            {
                "step": step,
                "epoch": round(epoch, 6),
                **{name: found[name] for name in _IN_A_LINE if name in found},
                **{name: round(value, 6) for name, value in changing.items()},
                "tokens": progress.tokens,
                "seconds": round(seconds, 3),
            }
        )
        self.display.update(
            **{
                "loss": found["loss"],
                "soft loss": found.get("soft_loss") if soft else None,
                "hard loss": found.get("hard_loss"),
                "on-policy loss": found.get("on_policy_loss"),
                "speed": f"{progress.tokens / max(seconds, 1e-9):,.0f} tokens/s",
                "memory": format_bytes(peak_memory_bytes()),
            }
        )
        return found

    def held_out_line(self, step: int, logs: Mapping[str, float]) -> None:
        """Write and show a held-out score."""
        self.metrics_log.append({"step": step, **logs})
        shown: dict[str, Any] = {"held out": f"{logs['eval_bits_per_byte']:.4g} bits per byte"}
        self.display.update(**shown)

    # --- several processes, and checkpoints ---

    def bring_up_to_date(self) -> None:
        """Add what all processes have done since the last time; alone it has been added at once."""
        if self.group.alone:
            return
        own, progress = self._own, self.progress
        soft, hard, loss, tokens = self.group.sums([own.soft_sum, own.hard_sum, own.loss_sum, own.tokens])
        progress.soft_sum += soft
        progress.hard_sum += hard
        progress.loss_sum += loss
        progress.tokens += int(tokens)
        self._own = Progress()

    def collect_counts(self) -> None:
        """Let process 0 count what the teachers and the maps of the others have seen as its own."""
        if self.group.alone:
            return
        mass, teacher = self.objective.mass, self.teacher
        read, seconds = teacher.totals() if teacher is not None else (0, 0.0)
        own = [read, mass.mapped - self._mass_before[0], mass.rows - self._mass_before[1]]
        tokens, mapped, rows = self.group.sums(own)
        if self.group.leads:
            mass.restore(self._mass_before[0] + mapped, self._mass_before[1] + int(rows))
        self._mass_before = mass.mapped, mass.rows
        if teacher is not None:
            teacher.restore_totals(*((int(tokens), seconds) if self.group.leads else (0, 0.0)))

    def settled(self) -> Progress:
        """The sums as a checkpoint keeps them."""
        progress, mass = self.progress, self.objective.mass
        progress.seconds = self.seconds_so_far()
        if self.teacher is not None:
            progress.teacher_tokens, progress.teacher_seconds = self.teacher.totals()
        progress.mapped, progress.rows = mass.mapped, mass.rows
        return progress
