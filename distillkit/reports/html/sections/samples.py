"""What the models write, side by side."""

from __future__ import annotations

from distillkit.reports.html.elements import Markup, element, together
from distillkit.reports.html.sections.verdict import HERE
from distillkit.reports.html.writer import Writer

_MOST_LETTERS = 1500
_MOST_PROMPTS = 20


def samples(w: Writer) -> Markup:
    """The section."""
    texts = w.facts.demo.get("texts") or []
    if not texts:
        why = "samples.skipped" if w.facts.config.get("skip_demo") else "samples.missing"
        return w.section("samples", w.missing(why, f"distillkit demo {HERE}"))
    temperature, top_p = (w.derived(w.facts.demo.get(name), "short") for name in ("temperature", "top_p"))
    about = w("samples.about", temperature=temperature, top_p=top_p, seed=str(w.facts.demo.get("seed", "–")))
    return w.section("samples", element("p", about), [_sample(w, text) for text in texts[:_MOST_PROMPTS]])


def _sample(w: Writer, text: dict[str, str]) -> Markup:
    columns = [
        element("div", element("h4", w.model(name)), element("div", _cut(text[name]) or w("samples.empty"),
                class_="text", dir="auto"), class_=name)
        for name in ("before", "after", "teacher") if name in text
    ]  # fmt: skip
    prompt = element("h3", _cut(text["prompt"]), class_="prompt", dir="auto")
    return together(prompt, element("div", columns, class_="samples"))


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"
