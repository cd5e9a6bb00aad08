"""What each held-out document gained: a histogram, and the ten best and worst with their texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distillkit.reports.html.charts import histogram
from distillkit.reports.html.drawing import picture
from distillkit.reports.html.elements import Markup, element, together
from distillkit.reports.html.sections.verdict import HERE
from distillkit.reports.html.writer import Writer

SHOWN = 10


@dataclass(frozen=True)
class DocumentGain:
    """A document: its number, and its place in the lists of validation_details.json."""

    document: int
    place: int
    bytes: int
    before: float
    after: float

    @property
    def gain(self) -> float:
        """Bits per byte."""
        return self.before - self.after


def document_gains(details: Mapping[str, Any]) -> list[DocumentGain]:
    """Of every document that is scored, the best first."""
    documents = details.get("documents") or {}
    found = []
    for place, document in enumerate(documents.get("document") or ()):
        size = documents["bytes"]["after"][place]
        if size > 0:
            before, after = (documents["bits"][name][place] / size for name in ("before", "after"))
            found.append(DocumentGain(document, place, size, before, after))
    return sorted(found, key=lambda one: (-one.gain, one.document))


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
