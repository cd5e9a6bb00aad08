"""What lm-evaluation-harness measured, as the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit.words import say

_MODELS = ("before", "control", "after", "teacher")
_BETTER: Mapping[Any, str] = {True: "harness.higher", False: "harness.lower"}


def harness_rows(results: Mapping[str, Any], lang: str = "en") -> tuple[list[str], list[list[str]]]:
    """The models that were measured, and for each task and metric: task, metric, which is better, and a cell for each model.

    Args:
        results: `lm_eval` of validation.json: task -> metric -> model -> value, with `stderr` and `higher_is_better`.
    """
    metrics = [(task, metric, figures) for task, by_metric in results.items() for metric, figures in by_metric.items()]
    models = [name for name in _MODELS if any(name in figures for _, _, figures in metrics)]
    return models, [
        [task, metric, _better(figures, lang), *(_cell(figures, name) for name in models)]
        for task, metric, figures in metrics
    ]


def _better(figures: Mapping[str, Any], lang: str) -> str:
    key = _BETTER.get(figures.get("higher_is_better"))
    return "–" if key is None else say(lang, key)


def _cell(figures: Mapping[str, Any], name: str) -> str:
    """`0.4213±0.0121`: without blanks, so that four of them and a task's name fit into a line."""
    value, error = figures.get(name), figures.get("stderr", {}).get(name)
    if value is None:
        return "–"
    return f"{value:.4f}" if error is None else f"{value:.4f}±{error:.4f}"
