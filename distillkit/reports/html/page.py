"""The whole page, and what every page of the program has around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from distillkit.reports.html.elements import Markup, element, together
from distillkit.reports.html.facts import ReportFacts
from distillkit.reports.html.sections.cost import cost
from distillkit.reports.html.sections.curves import curves
from distillkit.reports.html.sections.data import data
from distillkit.reports.html.sections.documents import documents
from distillkit.reports.html.sections.layers import layers
from distillkit.reports.html.sections.lost import lost
from distillkit.reports.html.sections.samples import samples
from distillkit.reports.html.sections.scores import scores
from distillkit.reports.html.sections.settings import settings
from distillkit.reports.html.sections.using import load, reproduce
from distillkit.reports.html.sections.verdict import away, gaps, tiles, verdict
from distillkit.reports.html.style import STYLE
from distillkit.reports.html.writer import PageWriter, Writer

# Nothing is fetched, nothing runs: a browser holds the page to it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

SECTIONS: dict[str, Callable[[Writer], Markup | None]] = {
    "scores": scores, "settings": settings, "data": data, "curves": curves, "documents": documents, "lost": lost,
    "samples": samples, "layers": layers, "cost": cost, "reproduce": reproduce, "load": load,
}  # fmt: skip


def report_page(facts: ReportFacts, lang: str) -> str:
    """report.html of a run.

    Args:
        lang: "en" or "ru".

    Returns:
        A whole page without scripts, links or pictures of others; the same facts give the same page.
    """
    w = Writer(facts, lang)
    made = {name: part for name, write in SECTIONS.items() if (part := write(w)) is not None}
    created = facts.created.replace("T", " ").partition("+")[0]
    header = together(
        element("p", w("over", name=element("bdi", facts.name), created=created), class_="over"),
        element("h1", verdict(w)),
        away(w),
        tiles(w),
        gaps(w),
    )
    return whole_page(
        w, w.text("title", name=facts.name), header, made, w("footer", version=facts.version), facts.version
    )


def whole_page(
    w: PageWriter, title: str, header: Markup, sections: Mapping[str, Markup], footer: Markup, version: str
) -> str:
    """A page of its own: head, header with the list of sections, these, footer.

    Args:
        sections: by their anchors; there are words for `section.ANCHOR`.
        version: of distillkit.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content=f"distillkit {version}"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    links = [element("li", element("a", w(f"section.{name}"), href=f"#{name}")) for name in sections]
    body = element(
        "body",
        element("a", w("skip"), href="#main", class_="skip"),
        element(
            "div",
            element("header", header, element("nav", element("ul", links), aria_label=w.text("contents"))),
            element("main", together(list(sections.values())), id="main", tabindex=-1),
            element("footer", element("p", footer)),
            class_="page",
        ),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang=w.lang)}\n"
