"""Runs that only train, in this process: how they are begun and stopped, and what of them is compared."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from settings_file import bare_settings

from distillkit.cli import main as cli
from distillkit.training.trainer import DistillTrainer


def prepared_run(models: Path, output: Path, name: str, **changes: Any) -> Path:
    """A run that has its data; the arguments as for `bare_settings`."""
    settings = bare_settings(models, output, name, **changes)
    assert cli.main(["prepare-data", "--config", str(settings), "--quiet"]) == 0
    return output / name


def distill(run: Path, *options: str) -> int:
    """`distillkit distill --run RUN` in this process; its exit code."""
    return cli.main(["distill", "--run", str(run), "--quiet", *options])


def stop_at(run: Path, step: int, number: int = signal.SIGTERM, command: Callable[[Path], int] = distill) -> int:
    """Begin or continue, with a signal that arrives while `step` is being computed; the exit code."""
    compute_loss = DistillTrainer.compute_loss

    def compute(self: DistillTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step - 1:
            signal.raise_signal(number)
            DistillTrainer.compute_loss = compute_loss
        return compute_loss(self, *args, **kwargs)

    DistillTrainer.compute_loss = compute
    try:
        return command(run)
    finally:
        DistillTrainer.compute_loss = compute_loss


def metric_lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without times."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def loss_lines(run: Path) -> list[dict[str, Any]]:
    """Those of them that tell of steps."""
    return [line for line in metric_lines(run) if "loss" in line]


def update_of(run: Path, student: Path) -> torch.Tensor:
    """What a training has added to the weights.

    Args:
        student: the folder of the student before.
    """
    before, after = (load_file(folder / "model.safetensors") for folder in (student, run / "student" / "final"))
    return torch.cat([(after[name] - before[name]).flatten() for name in sorted(before)])


def relative_difference(run: Path, reference: Path, student: Path) -> float:
    """Of the updates of two trainings, relative to the reference's."""
    wanted = update_of(reference, student)
    return float((update_of(run, student) - wanted).norm() / wanted.norm())
