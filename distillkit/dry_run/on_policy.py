"""What on-policy steps add to a run: texts that the student writes, which the teacher reads beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from distillkit.data.sampled_texts import LONGEST_PROMPT, SHORTEST_PROMPT
from distillkit.device.precision import Compute
from distillkit.dry_run import microbenchmarks
from distillkit.models.shape import ModelShape
from distillkit.settings.conditions import is_on_policy
from distillkit.settings.parameters import Parameters
from distillkit.training.on_policy_schedule import EvenShare


@dataclass(frozen=True)
class PlannedSamples:
    """What the student writes and learns from, at most.

    Attributes:
        share: of all steps.
        steps: on-policy steps; written: those of them whose texts are written, not replayed.
        texts: of a step.
        prompt, new: tokens of a text before and behind where the student begins.
    """

    share: float = 0.0
    steps: int = 0
    written: int = 0
    texts: int = 0
    prompt: int = 0
    new: int = 0

    @classmethod
    def of(cls, config: Parameters, steps: int) -> PlannedSamples:
        """Those of a training of so many steps."""
        if not is_on_policy(vars(config)) or steps < 1:
            return cls()
        own = EvenShare(config.on_policy_fraction).count(steps)
        replayed = EvenShare(config.replay_fraction).count(own) if config.replay_buffer else 0
        new = min(config.on_policy_max_new_tokens, config.max_length - 1)
        prompt = max(1, min((SHORTEST_PROMPT + LONGEST_PROMPT) // 2, config.max_length // 2, config.max_length - new))
        return cls(own / steps, own, own - replayed, config.batch_size * config.gradient_accumulation, prompt, new)

    @property
    def read(self) -> int:
        """Tokens that the models read in all on-policy steps."""
        return self.steps * self.texts * (self.prompt + self.new)

    @property
    def targets(self) -> int:
        """Tokens that are learnt from in them."""
        return self.steps * self.texts * self.new

    @property
    def sampled(self) -> int:
        """Tokens that are written."""
        return self.written * self.texts * self.new

    def figures(self) -> dict[str, Any]:
        """For the plan; {} where there are none."""
        return {"on_policy_steps": self.steps, "sampled_tokens_at_most": self.sampled} if self.steps else {}


def writing_seconds(config: Parameters, compute: Compute, student: ModelShape, samples: PlannedSamples) -> float:
    """What the student takes to write: a token of every text of a micro-batch at a time, for which its weights are read once."""
    dtype = compute.autocast or torch.float32
    each = microbenchmarks.forward_per_token(student, dtype, compute, samples.prompt + samples.new)
    head = microbenchmarks.head_seconds(student.vocabulary, student.width, dtype, compute.device, config.batch_size)
    calls = samples.written * config.gradient_accumulation
    token = microbenchmarks.single_token(student, compute) + config.batch_size * head + (config.batch_size - 1) * each
    return calls * (samples.new * token + config.batch_size * samples.prompt * each)


def reading_seconds(config: Parameters, compute: Compute, teacher: ModelShape, samples: PlannedSamples) -> float:
    """What the teacher takes to read what the student wrote."""
    each = microbenchmarks.forward_per_token(
        teacher, compute.teacher, compute, samples.prompt + samples.new, config.batch_size,
        int8=config.teacher_precision == "int8",
    )  # fmt: skip
    return each * samples.read


def state_bytes(config: Parameters, student: ModelShape, itemsize: int) -> int:
    """What the student remembers of the texts that it is writing: keys and values of every layer."""
    if not is_on_policy(vars(config)):
        return 0
    samples = PlannedSamples.of(config, 1)
    return 2 * student.layers * student.width * itemsize * config.batch_size * (samples.prompt + samples.new)
