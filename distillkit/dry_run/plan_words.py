"""The plan in words for people; scripts read the figures of `plan.estimate_run` by their keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit.wording import format_bytes

# How the teacher's part is done, by the first word of what was decided; the reason follows.
_CACHE = {
    "exact": "once, all of its results are kept",
    "sparse": "once, a part of its results is kept",
    "off": "in every epoch, nothing is kept",
}
_STREAMING = {"on": "one block after another", "off": "as a whole"}
_YES_NO = {"on": "yes", "off": "no"}
_PHASES = {"teacher pass": "the teacher reads", "control": "also without the teacher"}
_PART_OF_TIME = "  "


def plan_rows(
    estimate: Mapping[str, Any], *, teacher: str, student: str, student_unknown: str | None = None
) -> list[tuple[str, str]]:
    """(what, in words) for everything that is known of the run and matters to it.

    Args:
        estimate: of `estimate_run`.
        teacher, student: their names.
        student_unknown: what to say of a student whose size is not known; by default that it is not here yet.
    """
    rows = [("this would stop at once", str(estimate["refused"]))] if estimate["refused"] else []
    rows += [("computed on", str(estimate["device"]))]
    served = "server_requests_at_most" in estimate
    if not served or estimate["teacher_parameters"] is not None:
        rows.append(("teacher", _model(teacher, estimate["teacher_parameters"])))
    rows.append(("student", _model(student, estimate["student_parameters"], student_unknown)))
    if estimate.get("trained_parameters") is not None:
        rows.append(("trained of it", f"an adapter of {estimate['trained_parameters']:,} numbers"))
    steps, tokens = estimate["optimizer_steps_at_most"], estimate["training_tokens_at_most"]
    rows.append(("training", f"at most {steps:,} steps, {tokens:,} tokens"))
    if estimate.get("early_stopping"):
        rows.append(("it may end sooner", str(estimate["early_stopping"])))
    for key, what, words in (
        ("teacher_cache", "the teacher reads", _CACHE),
        ("teacher_streaming", "the teacher in memory", _STREAMING),
        ("compiled_loss", "loss compiled", _YES_NO),
        ("control", "also without the teacher", _YES_NO),
    ):
        choice, _, why = str(estimate.get(key) or "").partition(": ")
        if choice and (key, choice) != ("compiled_loss", "off"):
            rows.append((what, f"{words.get(choice, choice)}: {why}"))
    rows += _server_rows(estimate)
    asked = estimate.get("answers_of_each_model_at_most")
    if asked:
        rows.append(("answers that are measured", f"at most {asked:,} of each model"))
    rows.append(("memory", _of_free(estimate["memory_bytes"], estimate["memory_free_bytes"], student_unknown)))
    disk = _of_free(estimate["disk_bytes"], estimate["disk_free_bytes"], student_unknown)
    kept = estimate["teacher_cache_bytes"]
    rows.append(("disk", f"{disk}, {format_bytes(kept)} of it for the teacher's results" if kept else disk))
    return rows + _time_rows(estimate, student_unknown)


def duration_words(seconds: float) -> str:
    """`about 40 s`, `about 15 min`, `about 3 h 20 min`."""
    if seconds < 1:
        return "less than 1 s"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"about {hours:,} h" + (f" {rest} min" if rest and hours < 10 else "")


def _unknown(words: str | None) -> str:
    return words or "not known before the models are here"


def _model(name: str, parameters: int | None, unknown: str | None = None) -> str:
    return f"{name}, {_unknown(unknown) if parameters is None else f'{count_words(parameters)} parameters'}"


def count_words(count: int) -> str:
    """`135 million`, `1.56 billion`."""
    for power, name in ((1e9, "billion"), (1e6, "million")):
        if count >= power:
            return f"{count / power:.3g} {name}"
    return f"{count:,}"


def _of_free(needed: int | None, free: int, unknown: str | None) -> str:
    """`3.2 of 21.0 GB free`."""
    if needed is None:
        return f"{_unknown(unknown)}; {format_bytes(free)} free"
    amount, unit = format_bytes(needed).split(" ")
    of, of_unit = format_bytes(free).split(" ")
    if needed > free:
        return f"{amount} {unit}, but only {of} {of_unit} free"
    return f"{amount}{'' if unit == of_unit else f' {unit}'} of {of} {of_unit} free"


def _server_rows(estimate: Mapping[str, Any]) -> list[tuple[str, str]]:
    requests = estimate.get("server_requests_at_most")
    if requests is None:
        return []
    words = f"at most {requests:,} requests, {estimate['server_prompt_tokens_at_most']:,} tokens sent"
    written = estimate.get("server_completion_tokens_at_most")
    rows = [("asked of the server", words + (f", {written:,} written" if written is not None else ""))]
    return rows + ([("time of the server", str(estimate["server_time"]))] if estimate.get("server_time") else [])


def _time_rows(estimate: Mapping[str, Any], unknown: str | None) -> list[tuple[str, str]]:
    total: float | None = estimate["total_seconds"]
    phases: Mapping[str, float] = estimate["phases"] or {}
    if total is None:
        return [("time", _unknown(unknown))]
    rows = [("time", duration_words(total) if phases else "none, nothing is left to do")]
    return rows + [
        (_PART_OF_TIME + _PHASES.get(name, name), duration_words(seconds)) for name, seconds in phases.items()
    ]
