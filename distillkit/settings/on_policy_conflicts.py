"""What excludes on-policy batches: where no teacher can score what the student writes, and where there is no room for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distillkit.settings.conditions import is_served, is_white_box

Values = Mapping[str, Any]
# (the settings that exclude each other, why, what to give instead)
Refusal = tuple[str, str, str]
_FLAG = "--on-policy-fraction"
_WITHOUT = f"leave {_FLAG} out"


def on_policy_refusal(values: Values) -> Refusal | None:
    """The first reason why a configuration with on-policy batches is refused; None where there is none."""
    if values["on_policy_fraction"] <= 0:
        return None
    for holds, settings, why, hint in _REFUSALS:
        if holds(values):
            return f"{_FLAG} and {settings(values)}", why, hint
    return None


def _step(values: Values) -> int:
    return values["batch_size"] * values["gradient_accumulation"]


_REFUSALS: tuple[tuple[Callable[[Values], bool], Callable[[Values], str], str, str], ...] = (
    (
        is_served,
        lambda values: f"--teacher-model {values['teacher_model'].split(':')[0]}:…",
        "what the student writes has to be read by the teacher itself, which is not here",
        f"{_WITHOUT}, or name a local teacher",
    ),
    (
        lambda values: not is_white_box(values),
        lambda values: "--box-type black",
        "a teacher that only writes gives no distributions on the student's texts",
        f"{_WITHOUT}, or use --box-type white",
    ),
    (
        lambda values: values["alpha"] == 0,
        lambda values: "--alpha 0",
        "on its own texts the student has nothing but the teacher to learn from",
        f"{_WITHOUT}, or give --alpha a value above 0",
    ),
    (
        lambda values: values["extra_teachers"] is not None,
        lambda values: "--extra-teachers",
        "one teacher reads what the student writes",
        "leave one of them out",
    ),
    (
        lambda values: values["teacher_streaming"] == "on",
        lambda values: "--teacher-streaming on",
        "on-policy batches are read by a teacher that is in memory as a whole",
        "leave one of them out",
    ),
    (
        lambda values: values["on_policy_fraction"] == 1 and values["teacher_cache"] not in ("auto", "off"),
        lambda values: f"--teacher-cache {values['teacher_cache']}",
        "every batch is on-policy, and nothing would read the cache",
        f"leave --teacher-cache out, or give {_FLAG} a value below 1",
    ),
    (
        lambda values: values["on_policy_max_new_tokens"] >= values["max_length"],
        lambda values: "--on-policy-max-new-tokens of --max-length or more",
        "nothing is left for the beginning that the student goes on from",
        "lower --on-policy-max-new-tokens, or raise --max-length",
    ),
    (
        lambda values: 0 < values["replay_buffer"] < _step(values),
        lambda values: f"--replay-buffer {values['replay_buffer']}",
        "it holds fewer texts than a step needs, and nothing would be used again",
        "give it the texts of a few steps at least (batch_size × gradient_accumulation each), or 0",
    ),
)
