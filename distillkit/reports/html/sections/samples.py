"""What the models write, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    # A demo of an earlier version has no figures of its texts.
    figures = w.facts.demo.get("figures") or [{}] * len(texts)
    shown = [_sample(w, *of_prompt) for of_prompt in zip(texts[:_MOST_PROMPTS], figures, strict=False)]
    return w.section("samples", element("p", about), _without(w), _speeds(w), shown)


def _without(w: Writer) -> Markup | None:
    """Why the teacher did not take part."""
    why = (w.facts.demo.get("left_out") or {}).get("teacher")
    if why is None:
        return None
    amounts = {name: w.derived(why[name], "bytes") for name in ("needed", "free") if name in why}
    return element("p", w(f"samples.left_out.{why['why']}", **amounts))


def _speeds(w: Writer) -> Markup | None:
    """How fast each model wrote."""
    models = w.facts.demo.get("models")
    if not models:
        return None
    listed = [
        together(" · " if place else "", w.model(name), " ", w.derived(speed["tokens_per_second"], "short"))
        for place, (name, speed) in enumerate(models.items())
    ]
    return element("p", w("samples.speeds"), " ", listed, ".")


def _sample(w: Writer, text: dict[str, str], figures: Mapping[str, Any]) -> Markup:
    columns = [
        element("div", element("h4", w.model(name)), element("div", _cut(text[name]) or w("samples.empty"),
                class_="text", dir="auto"), _remark(w, figures.get(name)), class_=name)
        for name in ("before", "after", "teacher") if name in text
    ]  # fmt: skip
    prompt = element("h3", _cut(text["prompt"]), class_="prompt", dir="auto")
    return together(prompt, element("div", columns, class_="samples"))


def _remark(w: Writer, figures: Mapping[str, Any] | None) -> Markup | None:
    """What is wrong with a text, in words."""
    fault = (figures or {}).get("fault")
    if figures is None or fault not in ("repetition", "not text"):
        return None
    share = w.derived(figures["repeated_share"], "share")
    return element("p", w(f"samples.fault.{fault.replace(' ', '_')}", share=share), class_="note")


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"
