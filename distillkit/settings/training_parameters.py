"""The knobs of the training beside the promised parameters, named as in `transformers.TrainingArguments` where it has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from distillkit.settings.core_parameters import CoreParameters
from distillkit.settings.facts import NOT_NEGATIVE, at_least, parameter

OptimizerName = Literal["adamw", "adamw-8bit", "adafactor", "muon"]
AttentionImplementation = Literal["auto", "eager", "sdpa"]


@dataclass(frozen=True, kw_only=True)
class TrainingParameters(CoreParameters):
    """With their defaults a training is what it was before there were knobs."""

    optimizer: OptimizerName = parameter("adamw", "advanced", topic="course", affects="distill")
    weight_decay: float = parameter(
        0.0,
        "advanced",
        topic="course",
        low=0.0,
        high=1.0,
        possible=NOT_NEGATIVE,
        affects="distill",
        examples=("0.01", "0.1"),
    )
    max_grad_norm: float = parameter(
        1.0,
        "advanced",
        topic="course",
        low=0.0,
        high=100.0,
        possible=NOT_NEGATIVE,
        affects="distill",
        examples=("0.5", "0"),
    )
    gradient_checkpointing: bool = parameter(False, "advanced", topic="course")
    max_steps: int | None = parameter(
        None,
        "advanced",
        topic="course",
        low=1,
        high=10_000_000,
        possible=at_least(1),
        affects="distill",
        may_grow=True,
        examples=("500", "10000"),
    )
    early_stopping_patience: int = parameter(
        0, "advanced", topic="course", low=0, high=1000, possible=NOT_NEGATIVE, affects="distill", examples=("3",)
    )
    attn_implementation: AttentionImplementation = parameter("auto", "advanced", topic="machine", affects="distill")
    model_kwargs: dict[str, Any] = parameter(
        {}, "advanced", topic="machine", affects="prepare-data", on_command_line=False
    )
    report_to: str = parameter("none", "advanced", topic="measuring", examples=("tensorboard", "tensorboard,mlflow"))
