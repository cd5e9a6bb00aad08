"""The parameters of on-policy batches: texts that the student writes itself while it is trained, scored by the teacher."""

from __future__ import annotations

from dataclasses import dataclass

from distillkit.settings.conditions import ON_POLICY, REPLAYED
from distillkit.settings.facts import NOT_NEGATIVE, PART, POSITIVE, SHARE, at_least, parameter
from distillkit.settings.training_parameters import TrainingParameters


@dataclass(frozen=True, kw_only=True)
class OnPolicyParameters(TrainingParameters):
    """With their defaults every batch is of the data set."""

    on_policy_fraction: float = parameter(
        0.0,
        "advanced",
        topic="sampling",
        low=0.0,
        high=1.0,
        possible=SHARE,
        affects="distill",
        examples=("0.25", "0.5"),
    )
    on_policy_max_new_tokens: int = parameter(
        64,
        "advanced",
        topic="sampling",
        low=4,
        high=4096,
        possible=at_least(1),
        affects="distill",
        used_by=ON_POLICY,
        examples=("32", "128"),
    )
    on_policy_temperature: float = parameter(
        1.0,
        "advanced",
        topic="sampling",
        low=0.1,
        high=2.0,
        possible=POSITIVE,
        affects="distill",
        used_by=ON_POLICY,
        examples=("0.8",),
    )
    replay_buffer: int = parameter(
        0,
        "advanced",
        topic="sampling",
        low=0,
        high=100_000,
        possible=NOT_NEGATIVE,
        affects="distill",
        used_by=ON_POLICY,
        examples=("1000",),
    )
    replay_fraction: float = parameter(
        0.5,
        "advanced",
        topic="sampling",
        low=0.05,
        high=0.95,
        possible=PART,
        affects="distill",
        used_by=REPLAYED,
        examples=("0.75",),
    )
