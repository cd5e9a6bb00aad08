"""A training that ended early, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def early_remark(train: Mapping[str, Any]) -> str:
    """What is said of a training that ended early; "" of another one.

    Args:
        train: its figures, `train` of metrics.json.
    """
    early = train.get("stopped_early")
    if early is None:
        return ""
    scores = "one held-out score" if early["patience"] == 1 else f"{early['patience']} held-out scores in a row"
    return f"; stopped early, after step {train['steps']:,} of {early['of_steps']:,}: {scores} without a new best one"
