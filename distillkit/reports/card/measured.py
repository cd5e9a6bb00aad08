"""The section of a model card with what was measured on held-out texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillkit.reports.card import markdown
from distillkit.reports.harness_table import harness_rows

_MODELS = (
    ("before", "student before"), ("control", "the same without the teacher"), ("after", "student after"),
    ("teacher", "teacher"),
    ("tuned_teacher", "teacher as it taught, tuned"),
)  # fmt: skip


def measured(validation: Mapping[str, Any] | None) -> list[str]:
    """The scores of all models, what the student has gained, whether answers end, and what the harness says.

    Args:
        validation: the content of validation.json, None where the student was not validated.
    """
    if validation is None:
        return ["This student was not measured on held-out texts: nothing is known about its quality."]
    # There need not be a control.
    measured_models = [(name, figures) for model, name in _MODELS if (figures := validation.get(model)) is not None]
    if validation.get("teachers"):
        measured_models = [("teachers together" if name == "teacher" else name, one) for name, one in measured_models]
    rows = [
        (name, markdown.figure(figures.get("bits_per_byte"), ".4f"), markdown.figure(figures.get("perplexity"), ".2f"))
        for name, figures in measured_models
    ]
    rows += [
        (
            f"teacher {number} alone",
            markdown.figure(one.get("bits_per_byte"), ".4f"),
            markdown.figure(one.get("perplexity"), ".2f"),
        )
        for number, one in enumerate(validation.get("teachers") or (), 1)
    ]
    documents, size = (
        markdown.count(validation.get("documents"), "document"),
        markdown.count(validation.get("bytes"), "byte"),
    )
    has_teacher = validation.get("teacher") is not None  # One behind a server need not be.
    # Without an interval a share of the gap would be read as measured.
    closed = validation.get("gap_closed") if validation["gain"].get("ci95") is not None else None
    gap = f"\n- Gap to the teacher closed: {markdown.figure(closed, '.1%')}" if has_teacher else ""
    teachers = validation.get("teacher_gain")
    share = (
        ""
        if teachers is None
        else f"\n- The teacher's part of it: {_gain(teachers)}; the rest is training on these texts"
    )
    return [
        f"On {documents} ({size}) that neither training nor the choice of the best checkpoint has seen. Lower is better; "
        "perplexity is per token, so models with different tokenizers compare by bits per byte only.",
        markdown.table(("model", "bits per byte", "perplexity"), rows, numeric=True),
        f"- Gain: {_gain(validation['gain'])}{share}{gap}\n- Verdict: **{markdown.plain(validation['verdict'])}**",
        *_answering(measured_models),
        *_harness(validation),
    ]


def _answering(models: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Whether answers end, of models that were asked."""
    asked = [(name, answers) for name, figures in models if (answers := figures.get("answers"))]
    if not asked:
        return []
    limit = markdown.count(asked[0][1].get("limit"), "token")
    rows = [
        (
            name,
            f"{markdown.figure(answers['stopped'], 'd')} of {markdown.figure(answers['asked'], 'd')}",
            markdown.figure(answers["mean_tokens"], ".1f"),
        )
        for name, answers in asked
    ]
    return [
        f"Answers to the questions of held-out conversations, greedy, cut off after {limit}: how many each model ended by itself.",
        markdown.table(("model", "answers that stop", "tokens on average"), rows, numeric=True),
    ]


def _harness(validation: Mapping[str, Any]) -> list[str]:
    """What lm-evaluation-harness measured, if it was asked."""
    models, rows = harness_rows(validation.get("lm_eval") or {})
    if not rows:
        return []
    about = validation.get("lm_eval_run") or {}
    asked = "in each model's chat template" if about.get("chat_template") else "as plain text"
    names = dict(_MODELS)
    return [
        f"Tasks of lm-evaluation-harness {markdown.plain(about.get('version', ''))}, asked {asked}, with the standard error:",
        markdown.table(
            ("task", "metric", "better", *(names[name] for name in models)),
            [(markdown.plain(task), markdown.plain(metric), *cells) for task, metric, *cells in rows],
        ),
    ]


def _gain(gain: Mapping[str, Any]) -> str:
    """What the student has gained, with its interval where there is one."""
    estimate, interval = f"{markdown.figure(gain.get('bits_per_byte'), '.4f')} bits per byte", gain.get("ci95")
    if not isinstance(interval, Sequence) or len(interval) != 2:
        return f"{estimate}, without an interval: too few documents"
    low, high = (markdown.figure(end, ".4f") for end in interval)
    return f"{estimate}, 95% interval {low} to {high} (paired bootstrap over documents)"
