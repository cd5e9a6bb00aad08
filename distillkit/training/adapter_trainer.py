"""Training an adapter: what a student's training has otherwise where its own weights are frozen.

The loss needs nothing else: a frozen head has no trained parameters, so the written-out gradient of
`distillkit.losses.linear_head` is only that of the hidden states.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from distillkit.console import Console
from distillkit.errors import DistillkitError
from distillkit.models.lora import LoraSettings, add_lora, trained_parameters
from distillkit.settings.parameters import Parameters
from distillkit.training.trainer import DistillTrainer

TRAINED = "trained.safetensors"


def adapt(student: nn.Module, config: Parameters, name: str, console: Console) -> None:
    """Put the adapter of a configuration on a student, in place; where it has none, nothing is done.

    Raises:
        PreconditionError, UsageError: the student cannot have one.
    """
    if config.adapter == "none":
        return
    whole = sum(weights.numel() for weights in student.parameters())
    trained = add_lora(student, LoraSettings(config.lora_rank, config.lora_alpha, config.lora_dropout), name)
    console.info(f"an adapter is trained: {trained:,} numbers beside {whole:,} frozen ones ({trained / whole:.2%})")


class AdapterTrainer(DistillTrainer):
    """A trainer whose checkpoints hold only what is trained, beside the optimizer's states of it."""

    def _save_student(self, folder: Path, student: nn.Module) -> None:
        held = {name: value.detach().cpu().contiguous() for name, value in trained_parameters(student).items()}
        save_file(held, folder / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        place = Path(resume_from_checkpoint) / TRAINED
        own = trained_parameters(model or self.accelerator.unwrap_model(self.model))
        try:
            stored = load_file(place)
        except (OSError, SafetensorError) as error:
            raise DistillkitError(f"{place} cannot be read: {error}", hint="start anew with --force") from error
        if stored.keys() != own.keys() or any(stored[name].shape != value.shape for name, value in own.items()):
            raise DistillkitError(f"{place} is of another adapter", hint="start anew with --force")
        for name, value in own.items():
            value.data.copy_(stored[name])
