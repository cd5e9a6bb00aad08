"""Whether more texts would help a run, and where they would have to come from: the steps, the settings or the source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distillkit.words import say


@dataclass(frozen=True)
class TrainingTexts:
    """The training texts of a run, and how many of them its training has read.

    Attributes:
        examples: there were to train on; None where that is not known.
        wanted: as many as were asked for (`sample_size`).
        read: so many of them the training has read at most; None where that is not known.
        needed: optimizer steps that read each of them once.
        limited: the number of steps was given (`max_steps`).
    """

    examples: int | None
    wanted: int
    read: int | None
    needed: int
    limited: bool

    @classmethod
    def of(cls, config: Mapping[str, Any], metrics: Mapping[str, Any], examples: int | None) -> TrainingTexts:
        """Of a run.

        Args:
            config: its parameters.
            metrics: the content of metrics.json.
            examples: training examples that `prepare-data` made.
        """
        step = int(config["batch_size"]) * int(config["gradient_accumulation"])
        steps = metrics.get("train", {}).get("steps")
        return cls(
            examples=examples,
            wanted=int(config["sample_size"]),
            read=None if steps is None else int(steps) * step,
            needed=math.ceil((examples or 0) / step),
            limited=config.get("max_steps") is not None,
        )

    @property
    def unread(self) -> bool:
        """Whether `max_steps` ended the training before it had read every text once: others would not be read either."""
        return self.limited and self.examples is not None and self.read is not None and self.read < self.examples

    @property
    def exhausted(self) -> bool:
        """Whether the source gave fewer texts than were asked for: asking for more brings none."""
        return self.examples is not None and self.examples < self.wanted

    def more(self, lang: str, usual: str = "way.more_text") -> str:
        """The way to more texts.

        Args:
            usual: the key of what is said where `sample_size` is what limits them.
        """
        if self.unread:
            return say(
                lang, "way.more_steps", steps=self.needed, read=f"{self.read:,}", examples=f"{self.examples:,}"
            )  # fmt: skip
        if self.exhausted:
            return say(lang, "way.more_source", examples=f"{self.examples:,}", wanted=f"{self.wanted:,}")
        return say(lang, usual)
