"""The training, step by step: loss terms, held-out score, that of the control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillkit.reports.html.charts import Curve, Points, averaged, line_chart
from distillkit.reports.html.drawing import legend, picture
from distillkit.reports.html.elements import Markup, element
from distillkit.reports.html.sections.verdict import HERE
from distillkit.reports.html.writer import Writer, finite
from distillkit.reports.step_lines import totals


def points_of(lines: Sequence[Mapping[str, Any]], name: str) -> Points:
    """(step, value) of the finite values of a column; of lines with the same step the last one counts."""
    found: dict[float, float] = {}
    for line in lines:
        step, value = finite(line.get("step")), finite(line.get(name))
        if step is not None and value is not None:
            found[step] = value
    return sorted(found.items())


def curves(w: Writer) -> Markup:
    """The section."""
    drawn = [chart for chart in (_held_out(w), _loss(w)) if chart is not None]
    if not drawn:
        return w.section("curves", w.missing("curves.missing", f"distillkit distill {HERE}"))
    return w.section("curves", *drawn)


def _loss(w: Writer) -> Markup | None:
    lines = w.facts.lines
    series = [("total", "loss"), ("hard", "hard_loss")]
    # Plain fine-tuning has no soft term: its column is nothing but zeros.
    if any(value for _, value in points_of(lines, "soft_loss")):
        series.insert(1, ("soft", "soft_loss"))
    series.append(("sampled", "on_policy_loss"))
    sources = {"loss": totals(lines)}
    found = [
        Curve(name, points) for name, column in series if (points := points_of(sources.get(column, lines), column))
    ]
    if not found:
        return None
    size = max(averaged(curve.points)[1] for curve in found)
    note = w("curves.averaged", steps=str(size)) if size > 1 else None
    told = "; ".join(
        f"{w.text(_name(w, curve.series))}: {w.shown(curve.points[0][1], 'short')} → {w.shown(curve.points[-1][1], 'short')}"
        for curve in found
    )
    chart = picture(
        lambda width: line_chart(width, found, x_label=w.text("axis.step"), decimal=w.text("decimal")),
        f"{w.text('curves.loss')}. {told}",
        w("curves.loss"),
        legend([(curve.series, w(_name(w, curve.series))) for curve in found]),
    )
    return chart if note is None else Markup(chart + element("p", note, class_="note"))


def _name(w: Writer, series: str) -> str:
    """The key of what a term of the loss is."""
    return f"curve.black.{series}" if w.facts.config.get("box_type") == "black" else f"curve.{series}"


def _held_out(w: Writer) -> Markup | None:
    own = points_of(w.facts.lines, "eval_bits_per_byte")
    if not own:
        return None
    found = [Curve("after", own, marked=len(own) <= 40)]
    control = points_of(w.facts.control_lines, "eval_bits_per_byte")
    if control:
        found.append(Curve("control", control, marked=len(control) <= 40))
    step, best = min(own, key=lambda point: point[1])
    names = {"after": "curve.held_out", "control": "curve.control"}
    told = "; ".join(
        f"{w.text(names[curve.series])}: {w.shown(curve.points[0][1], 'score')} → {w.shown(curve.points[-1][1], 'score')}"
        for curve in found
    )
    chart = picture(
        lambda width: line_chart(width, found, x_label=w.text("axis.step"), decimal=w.text("decimal")),
        f"{w.text('curves.held_out')}. {told}",
        w("curves.held_out"),
        legend([(curve.series, w(names[curve.series])) for curve in found]),
    )
    note = w("curves.best", step=w.derived(step, "count"), best=w.derived(best, "score"))
    without = None if control else element("p", w("curves.no_control"), class_="note")
    return Markup(chart + element("p", note, class_="note") + (without or ""))
