"""What compare.html is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MODELS = ("before", "control", "after", "teacher")


@dataclass(frozen=True)
class ComparisonFacts:
    """A comparison.

    Attributes:
        comparison: as `distillkit.comparing.result` gives it, and `--json` prints it.
        version: of the distillkit that compares.
    """

    comparison: Mapping[str, Any]
    version: str

    @property
    def runs(self) -> Sequence[Mapping[str, Any]]:
        """In the order in which they were named; the others are compared with the first."""
        return self.comparison["runs"]

    @property
    def names(self) -> list[str]:
        return [str(run["name"]) for run in self.runs]

    @property
    def measured(self) -> list[str]:
        """The models that at least one run has a score of."""
        return [name for name in MODELS if any(name in run["scores"] for run in self.runs)]

    def content(self, file: str) -> Mapping[str, Any]:
        """The comparison, under the name that `data-of` gives it."""
        return {"comparison": self.comparison}[file]
