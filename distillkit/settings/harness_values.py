"""Values of `lm_eval`: tasks of lm-evaluation-harness, by name or as files."""

from __future__ import annotations

from distillkit.errors import UsageError

_FILES = (".yaml", ".yml")


def task_names(value: str) -> list[str]:
    """`hellaswag, ./mine.yaml` -> its tasks, as they were written."""
    return [name.strip() for name in value.split(",")]


def is_task_file(name: str) -> bool:
    """Whether a task is named as a file rather than by its name."""
    return name.lower().endswith(_FILES)


def check_tasks_value(value: str, where: str) -> None:
    """Refuse a list with an empty place or with a task named twice.

    Args:
        value: of `lm_eval`.
        where: where it came from, for the message.

    Raises:
        UsageError: it is such a list.
    """
    names = task_names(value)
    hint = "for example --lm-eval hellaswag,arc_easy or --lm-eval ./mine.yaml"
    if "" in names or any("\0" in name for name in names):
        raise UsageError(f"lm_eval: {value[:200]!r} has a task without a name ({where})", hint=hint)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"lm_eval: {twice!r} is named twice ({where})", hint=hint)
