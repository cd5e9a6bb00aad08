"""Of a student that is cut from its teacher: which layers it has, how they were chosen, and what that cost."""

from __future__ import annotations

from distillkit.reports.html.charts import Bar, bar_chart
from distillkit.reports.html.drawing import picture
from distillkit.reports.html.elements import Child, Markup, element, together
from distillkit.reports.html.writer import Form, Writer, finite

# The scores that data/cut.json may have, the one that decided first.
_SCORES = ("losses_without", "influence")


def layers(w: Writer) -> Markup | None:
    """The section; None where the student is a model of its own."""
    cut = w.facts.cut
    if not cut:
        return None
    kept = [int(layer) for layer in cut.get("kept") or ()]
    way = str(cut.get("way"))
    about = w(
        "layers.about",
        kept=w.derived(len(kept), "count"),
        all=w.derived(finite(cut.get("layers")), "count"),
        way=w(f"layers.way.{way}") if w.has(f"layers.way.{way}") else element("code", way),
    )
    which = element("p", w("layers.which"), " ", element("span", ", ".join(map(str, kept)), class_="n"), class_="note")
    return w.section("layers", element("p", about), which, _chart(w, kept), _width(w), _start(w), _removed(w), _fit(w))


def _chart(w: Writer, kept: list[int]) -> Markup | None:
    found = {name: [finite(value) for value in w.facts.cut.get(name) or ()] for name in _SCORES}
    name = next((name for name, values in found.items() if values and None not in values), None)
    if name is None:
        return None
    bars = [Bar(value or 0.0, layer in kept) for layer, value in enumerate(found[name])]
    told = w.text("layers.told", kept=", ".join(map(str, kept)))
    return picture(
        lambda width: bar_chart(width, bars, x_label=w.text("axis.layer"), decimal=w.text("decimal")),
        f"{w.text(f'layers.{name}')}. {told}",
        w(f"layers.{name}"),
        element("p", w("layers.legend"), class_="note"),
    )


def _width(w: Writer) -> Markup | None:
    sizes = (w.facts.cut.get("width") or {}).get("sizes") or {}
    rows: list[tuple[Child, Child]] = [
        (w(f"layers.width.{name}"), w("layers.from_to", before=w.figure(f"cut.width.sizes.{name}.0", "count"),
                                      after=w.figure(f"cut.width.sizes.{name}.1", "count")))
        for name, ends in sizes.items() if ends[0] != ends[1] and w.has(f"layers.width.{name}")
    ]  # fmt: skip
    return together(element("h3", w("layers.width")), w.pairs(rows)) if rows else None


def _start(w: Writer) -> Markup | None:
    """What the student was worth before it was trained, on a few tokens."""
    figures = w.facts.cut.get("bits_per_byte") or {}
    rows: list[tuple[Child, Child]] = [
        (w(f"layers.start.{name}"), w.figure(f"cut.bits_per_byte.{name}", "score"))
        for name in ("teacher", "cut", "fitted") if finite(figures.get(name)) is not None
    ]  # fmt: skip
    if not rows:
        return None
    tokens = element("p", w("layers.start.tokens", tokens=w.figure("cut.bits_per_byte.tokens", "count")), class_="note")
    return together(element("h3", w("layers.start")), w.pairs(rows), tokens)


def _removed(w: Writer) -> Markup | None:
    removed = w.facts.cut.get("removed") or ()
    if not removed:
        return None
    rows = [
        [w.figure(f"cut.removed.{place}.layer", "count"), w.figure(f"cut.removed.{place}.loss", "score")]
        for place in range(len(removed))
    ]
    columns = [w("layers.layer"), w("layers.loss_after")]
    return w.folded(w("layers.removed"), w.table(w.text("layers.removed"), columns, rows))


def _fit(w: Writer) -> Markup | None:
    fitted = (w.facts.cut.get("fit") or {}).get("layers") or ()
    if not fitted:
        return None
    form: Form = "score"
    rows = [
        [w.figure(f"cut.fit.layers.{place}.layer", "count"),
         *(w.figure(f"cut.fit.layers.{place}.{when}", form) for when in ("before", "after"))]
        for place in range(len(fitted))
    ]  # fmt: skip
    columns = [w("layers.layer"), w("layers.fit.before"), w("layers.fit.after")]
    return w.folded(w("layers.fit"), w.table(w.text("layers.fit"), columns, rows))
