"""The knobs of the training beside the promised parameters, named as in `transformers.TrainingArguments` where it has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from distillkit.settings.conditions import LORA
from distillkit.settings.core_parameters import CoreParameters
from distillkit.settings.facts import NOT_NEGATIVE, PART_BELOW_ONE, POSITIVE, at_least, parameter

OptimizerName = Literal["adamw", "adamw-8bit", "adafactor", "muon"]
AdapterName = Literal["none", "lora"]
AttentionImplementation = Literal["auto", "eager", "sdpa"]
ParallelName = Literal["ddp", "fsdp"]


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
    adapter: AdapterName = parameter("none", "advanced", topic="course", affects="distill")
    lora_rank: int = parameter(
        16,
        "advanced",
        topic="course",
        low=1,
        high=1024,
        possible=at_least(1),
        affects="distill",
        used_by=LORA,
        examples=("8", "64"),
    )
    lora_alpha: float = parameter(
        32.0,
        "advanced",
        topic="course",
        low=1.0,
        high=2048.0,
        possible=POSITIVE,
        affects="distill",
        used_by=LORA,
        examples=("16", "128"),
    )
    lora_dropout: float = parameter(
        0.0,
        "advanced",
        topic="course",
        low=0.0,
        high=0.5,
        possible=PART_BELOW_ONE,
        affects="distill",
        used_by=LORA,
        examples=("0.05",),
    )
    keep_adapter: bool = parameter(False, "advanced", topic="course", affects="distill", used_by=LORA)
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
    parallel: ParallelName = parameter("ddp", "advanced", topic="machine")
    attn_implementation: AttentionImplementation = parameter("auto", "advanced", topic="machine", affects="distill")
    model_kwargs: dict[str, Any] = parameter(
        {}, "advanced", topic="machine", affects="prepare-data", on_command_line=False
    )
    report_to: str = parameter("none", "advanced", topic="measuring", examples=("tensorboard", "tensorboard,mlflow"))
