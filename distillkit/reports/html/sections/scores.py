"""Before, after, control and teacher side by side, with intervals."""

from __future__ import annotations

from distillkit.reports.html.charts import DotRow, dot_chart
from distillkit.reports.html.drawing import picture
from distillkit.reports.html.elements import Child, Markup, element
from distillkit.reports.html.sections.teachers import teachers
from distillkit.reports.html.sections.verdict import HERE
from distillkit.reports.html.writer import Form, Writer, finite, looked_up

# Key, form; a row is shown where at least one model has the figure.
_ROWS: tuple[tuple[str, Form], ...] = (
    ("perplexity", "plain"), ("teacher_agreement", "share"), ("teacher_kl", "score"), ("tokens", "count"),
    ("parameters", "count"), ("size_bytes", "bytes"), ("generated_tokens_per_second", "plain"),
)  # fmt: skip


def scores(w: Writer) -> Markup:
    """The section."""
    facts = w.facts
    measured = [name for name in facts.measured if finite(facts.validation[name].get("bits_per_byte")) is not None]
    if not measured:
        why = "scores.skipped" if facts.config.get("skip_validation") else "scores.missing"
        return w.section("scores", w.missing(why, f"distillkit validate {HERE}"))
    counts = w(
        "scores.about",
        documents=w.figure("validation.documents", "count"),
        bytes=w.figure("validation.bytes", "bytes"),
    )
    return w.section(
        "scores", element("p", counts), _chart(w, measured), _table(w, measured), element("p", _gains(w)),
        teachers(w), element("p", w("scores.words"), class_="note"),
    )  # fmt: skip


def _chart(w: Writer, measured: list[str]) -> Markup:
    rows, told = [], []
    for name in measured:
        figures = w.facts.validation[name]
        value = float(figures["bits_per_byte"])
        low, high = (finite(looked_up(figures, ["bits_per_byte_ci95", end])) for end in "01")
        shown = w.shown(value, "score")
        rows.append(DotRow(w.text(f"model.{name}"), [(name, value, low, high)], shown))
        told.append(f"{w.text(f'model.{name}')}: {shown}")
    axis = w.text("axis.bits")
    return picture(
        lambda width: dot_chart(width, rows, x_label=axis, decimal=w.text("decimal")),
        f"{w.text('scores.chart')}. {'; '.join(told)}",
        w("scores.chart"),
    )


def _table(w: Writer, measured: list[str]) -> Markup:
    def cell(name: str, key: str, form: Form) -> Child:
        return w.figure(f"validation.{name}.{key}", form)

    rows: list[list[Child]] = [
        [w("score.bits_per_byte"), *([cell(name, "bits_per_byte", "score"),
                                      w.interval(f"validation.{name}.bits_per_byte_ci95", "score")] for name in measured)]
    ]  # fmt: skip
    for key, form in _ROWS:
        if any(finite(w.facts.validation[name].get(key)) is not None for name in measured):
            rows.append([w(f"score.{key}"), *(cell(name, key, form) for name in measured)])
    if any(w.facts.validation[name].get("answers") for name in measured):
        rows.append([w("score.answers"), *(_answers(w, name) for name in measured)])
    return w.table(w.text("scores.table"), ["", *(w.model(name) for name in measured)], rows)


def _answers(w: Writer, name: str) -> Child:
    if not w.facts.validation[name].get("answers"):
        return w.dash()
    stopped, asked = (w.figure(f"validation.{name}.answers.{key}", "count") for key in ("stopped", "asked"))
    return w("score.answers_of", stopped=stopped, asked=asked)


def _gains(w: Writer) -> Markup:
    interval = w.interval("validation.gain.ci95", "gain")
    gain = w.figure("validation.gain.bits_per_byte", "gain")
    return w("scores.gain", gain=gain, interval=interval or w("scores.no_interval"))
