"""Which lines of metrics.jsonl have a total that can be drawn as one curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Lines = Sequence[Mapping[str, Any]]


def totals(lines: Lines) -> Lines:
    """Those of steps on the data set: the total of an on-policy step is another loss, and has a curve of its own. All of them
    where lines are over several steps, and so have both."""
    given = [line for line in lines if "on_policy_loss" not in line]
    return given if any("loss" in line for line in given) else lines
