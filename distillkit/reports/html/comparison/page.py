"""compare.html as a whole."""

from __future__ import annotations

from distillkit.reports.html.comparison.facts import ComparisonFacts
from distillkit.reports.html.comparison.sections import costs, pairs, scores, settings, the_runs
from distillkit.reports.html.comparison.sentences import ComparisonWriter, about_texts, headline, notes
from distillkit.reports.html.elements import element, together
from distillkit.reports.html.page import whole_page

SECTIONS = {"run_scores": scores, "differences": pairs, "what_differs": settings, "costs": costs, "the_runs": the_runs}


def comparison_page(facts: ComparisonFacts, lang: str) -> str:
    """compare.html.

    Args:
        lang: "en" or "ru".

    Returns:
        A whole page like report.html; the same comparison gives the same page.
    """
    w = ComparisonWriter(facts, lang)
    told = notes(w)
    header = together(
        element("p", w("compare.over", count=w.derived(len(facts.runs), "count")), class_="over"),
        element("h1", headline(w)),
        [element("p", sentence, class_="lead") for sentence in about_texts(w)],
        element(
            "div", element("h2", w("compare.notes"), id="h-notes"), element("ul", [element("li", one) for one in told]),
            class_="gaps",
        ) if told else None,
    )  # fmt: skip
    made = {name: write(w) for name, write in SECTIONS.items()}
    title = w.text("compare.title", names=" / ".join(facts.names))
    return whole_page(w, title, header, made, w("compare.footer", version=facts.version), facts.version)
