"""A training that ended early, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit.words import say


def early_remark(train: Mapping[str, Any], lang: str = "en") -> str:
    """What is said of a training that ended early; "" of another one.

    Args:
        train: its figures, `train` of metrics.json.
    """
    early = train.get("stopped_early")
    if early is None:
        return ""
    key = "early.one" if early["patience"] == 1 else "early.several"
    return say(lang, key, step=f"{train['steps']:,}", of=f"{early['of_steps']:,}", count=early["patience"])
