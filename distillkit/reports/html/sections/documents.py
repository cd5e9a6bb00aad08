"""What each held-out document gained: a histogram, and the ten best and worst with their texts."""

from __future__ import annotations

from distillkit.reports.document_gains import DocumentGain, document_gains
from distillkit.reports.html.charts import histogram
from distillkit.reports.html.drawing import picture
from distillkit.reports.html.elements import Markup, element, together
from distillkit.reports.html.sections.verdict import HERE
from distillkit.reports.html.writer import Writer

SHOWN = 10


def extremes(gains: list[DocumentGain]) -> tuple[list[DocumentGain], list[DocumentGain]]:
    """The ten best and the ten worst, the worst first; none is among both."""
    count = min(SHOWN, len(gains) // 2)
    return gains[:count] if count else gains[:1], gains[len(gains) - count :][::-1]


def documents(w: Writer) -> Markup:
    """The section."""
    gains = document_gains(w.facts.details)
    if not gains:
        return w.section("documents", w.missing("documents.missing", f"distillkit validate {HERE} --force"))
    values = [one.gain for one in gains]
    better = sum(value > 0 for value in values)
    about = w("documents.about", better=w.derived(better, "count"), all=w.derived(len(values), "count"))
    median = sorted(values)[len(values) // 2]
    chart = picture(
        lambda width: histogram(width, values, x_label=w.text("axis.gain"), decimal=w.text("decimal")),
        w.text("documents.told", better=w.shown(better, "count"), all=w.shown(len(values), "count"),
               median=w.shown(median, "gain")),
        w("documents.chart"),
    )  # fmt: skip
    best, worst = extremes(gains)
    lists = [
        (w("documents.best"), best),
        (w("documents.worst"), worst),
    ]
    return w.section(
        "documents",
        element("p", about),
        chart,
        [together(element("h3", title), [_document(w, one) for one in chosen]) for title, chosen in lists if chosen],
    )


def _document(w: Writer, one: DocumentGain) -> Markup:
    held = w.facts.texts.get(one.document)
    text = w("documents.no_text") if held is None else together(held.text, None if held.whole else " …")
    figures = w(
        "documents.line", gain=w.derived(one.gain, "gain"), before=w.derived(one.before, "score"),
        after=w.derived(one.after, "score"),
    )  # fmt: skip
    start = "" if held is None else " ".join(held.text.split())[:120]
    title = together(element("span", figures, class_="figures"), element("span", start, class_="start", dir="auto"))
    size = element("p", w("documents.size", bytes=w.derived(one.bytes, "bytes")), class_="note")
    return w.folded(title, element("div", text, class_="text", dir="auto"), size)
