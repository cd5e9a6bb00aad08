"""Where the bits are lost: in which characters, in how rare tokens, at which places of a context."""

from __future__ import annotations

from distillkit.reports.html.charts import DotRow, dot_chart
from distillkit.reports.html.drawing import legend, picture
from distillkit.reports.html.elements import Child, Markup, element, together
from distillkit.reports.html.sections.verdict import HERE
from distillkit.reports.html.writer import Writer, looked_up

DIVISIONS = ("kind", "rarity", "position")


def lost(w: Writer) -> Markup:
    """The section."""
    found = w.facts.details.get("lost") or {}
    if not found or not _scored(w, "kind"):
        return w.section("lost", w.missing("lost.missing", f"distillkit validate {HERE} --force"))
    left_out = w.facts.details.get("texts_left_out")
    return w.section(
        "lost",
        element("p", w("lost.about")),
        [_division(w, division) for division in DIVISIONS if _scored(w, division)],
        element("p", w("lost.left_out", texts=w.figure("details.texts_left_out", "count")), class_="note")
        if left_out
        else None,
    )


def _models(w: Writer) -> list[str]:
    return [name for name in ("before", "control", "after", "teacher") if name in w.facts.details["lost"]["kind"]]


def _rate(w: Writer, division: str, name: str, label: str) -> float | None:
    """Bits per byte of a model in a class."""
    found = looked_up(w.facts.details, ["lost", division, name, label]) or {}
    return w.share_of(found.get("bits", 0.0), found.get("bytes", 0))


def _scored(w: Writer, division: str) -> list[str]:
    """The classes that have a byte."""
    of_student = looked_up(w.facts.details, ["lost", division, "after"]) or {}
    return [label for label, found in of_student.items() if found["bytes"]]


def _division(w: Writer, division: str) -> Markup:
    models, labels = _models(w), _scored(w, division)
    whole_bits = sum(w.facts.details["lost"][division]["after"][label]["bits"] for label in labels)
    whole_bytes = sum(w.facts.details["lost"][division]["after"][label]["bytes"] for label in labels)
    rows, table, told = [], [], []
    for label in labels:
        rates = {name: _rate(w, division, name, label) for name in models}
        name = w.text(f"lost.{division}.{label}")
        dots = [(model, rate, None, None) for model, rate in rates.items() if rate is not None]
        rows.append(DotRow(name, dots))
        own = w.facts.details["lost"][division]["after"][label]
        cells: list[Child] = [
            w.derived(w.share_of(own["bytes"], whole_bytes), "share"),
            w.derived(w.share_of(own["bits"], whole_bits), "share"),
            *(w.derived(rate, "score") for rate in rates.values()),
        ]
        table.append([name, *cells])
        told.append(f"{name}: {w.text('model.after')} {w.shown(rates['after'] or 0.0, 'score')}")
    title = w.text(f"lost.{division}")
    columns = ["", w("lost.bytes"), w("lost.bits"), *(w.model(name) for name in models)]
    chart = picture(
        lambda width: dot_chart(width, rows, x_label=w.text("axis.bits"), decimal=w.text("decimal")),
        f"{title}. {'; '.join(told)}",
        w(f"lost.{division}"),
        legend([(name, w.model(name)) for name in models], dots=True),
    )
    return together(chart, w.folded(w("lost.table"), w.table(title, columns, table)))
