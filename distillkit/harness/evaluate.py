"""One model through the tasks of lm-evaluation-harness."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from distillkit.evaluation.batched_forward import default_batch_tokens
from distillkit.harness.quiet import quiet_harness
from distillkit.harness.tasks import task_manager, task_specs
from distillkit.interrupts import check_interrupted
from distillkit.settings.harness_values import is_task_file

# Texts at once at most, and the tokens of one as they are counted for that.
_MOST_TEXTS, _USUAL_TOKENS = 16, 512
# Of metrics whose standard error has no formula; the harness's own default of 100 000 takes minutes for each.
_DRAWS = 1000
# The harness's own seeds: of Python's generator, and of all others.
_FIRST_SEED, _SEED = 0, 1234
# The one that most tasks have, and that no reader needs to see.
_ONLY_FILTER = "none"


def evaluate_model(
    model: nn.Module,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    context: int | None,
    autocast: torch.dtype | None = None,
    chat_template: str | None = None,
    system_prompt: str | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """What the harness measures, with its own defaults: number of shots, seeds and start token as the tasks say.

    Args:
        model: a causal language model in eval mode, on the device on which it is to compute.
        tokenizer: the model's own, which the harness may give a padding token.
        tasks: names, and paths of task files.
        context: tokens that the model can read; None for what its configuration says.
        autocast: the format of matrix products; None for that of the weights.
        chat_template: questions are put in this template; None: as plain text.
        system_prompt: goes in front of every question; with a template only.

    Returns:
        task -> metric -> `value`, `stderr` (None where there is none), `higher_is_better`. Tasks include the groups and the
        parts of groups that were named; a metric behind a filter is called `metric,filter`.

    Raises:
        Interrupted: a signal arrived; asked before every pass of the model.
        Exception: whatever the harness raises: it is a library for many models and data sets.
    """
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    with quiet_harness():
        from lm_eval.evaluator import evaluate  # pyright: ignore[reportMissingImports]
        from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

        loaded = task_manager(not all(map(is_task_file, tasks))).load(task_specs(tasks))
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=_SEED)
        texts = max(1, min(_MOST_TEXTS, default_batch_tokens(model) // min(context or _USUAL_TOKENS, _USUAL_TOKENS)))
        model_class: Any = HFLM  # Its parameters are those of a class that hides them behind keywords.
        wrapped = model_class(
            pretrained=model, tokenizer=tokenizer, backend="causal", max_length=context, batch_size=texts,
            mixed_precision_dtype=autocast,
        )  # fmt: skip
        safe_point = model.register_forward_pre_hook(lambda *_: check_interrupted())
        try:
            # What `simple_evaluate` does besides asks other programs about the machine, for seconds.
            random.seed(_FIRST_SEED)
            np.random.seed(_SEED)
            torch.manual_seed(_SEED)
            found: Any = evaluate(
                wrapped, loaded, log_samples=False, bootstrap_iters=_DRAWS,
                apply_chat_template=chat_template is not None, fewshot_as_multiturn=True,
                system_instruction=system_prompt if chat_template is not None else None,
            )  # fmt: skip
        finally:
            safe_point.remove()
    assert found is not None  # None on the other ranks of a distributed run.
    figures: Mapping[str, Mapping[str, Any]] = {**found["results"], **found.get("groups", {})}
    better = found.get("higher_is_better", {})
    return {task: _metrics(values, better.get(task) or {}) for task, values in figures.items()}


def _metrics(values: Mapping[str, Any], better: Mapping[str, bool | None]) -> dict[str, dict[str, Any]]:
    """`acc,none` and `acc_stderr,none` of the harness -> `acc`."""
    metrics: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        name = metric if filtered == _ONLY_FILTER else key
        metrics[name] = {
            "value": _number(value),
            "stderr": _number(values.get(f"{metric}_stderr,{filtered}")),
            "higher_is_better": better.get(metric),
        }
    return metrics


def _number(value: Any) -> float | None:
    """A finite number; None for what is none: the harness writes "N/A" where it has no standard error."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None
