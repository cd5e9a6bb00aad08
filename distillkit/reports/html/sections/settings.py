"""The parameters: those that differ from the defaults, and folded away all others, each with where it came from."""

from __future__ import annotations

import re
from typing import Any

from distillkit.reports.html.elements import Child, Markup, element, together
from distillkit.reports.html.writer import PageWriter, Writer
from distillkit.settings import declared
from distillkit.settings.help_texts import group_title, help_text

_MOST_LETTERS = 300


def differing(config: dict[str, Any] | Any) -> list[str]:
    """The parameters whose value is not the default; without where a run lies, and what another one wins over."""
    left_out = set(declared.location_names())
    left_out |= {name for name, winner in declared.replacements().items() if config.get(winner) is not None}
    return [
        name for name in declared.fields()
        if name in config and name not in left_out and config[name] != declared.default(name)
    ]  # fmt: skip


def settings(w: Writer) -> Markup:
    """The section."""
    config = w.facts.config
    changed = differing(config)
    others = [
        name for name in declared.fields() if name in config and name not in {*changed, *declared.location_names()}
    ]
    columns = [w("settings.parameter"), w("settings.value"), w("settings.default"), w("settings.source")]
    table = (
        w.table(w.text("settings.changed"), columns, [_row(w, name) for name in changed], numeric=False, class_="wrap")
        if changed
        else element("p", w("settings.none"))
    )
    folded = [
        together(
            element("h3", group_title(group, w.lang)),
            w.table(
                group_title(group, w.lang),
                [w("settings.parameter"), w("settings.value"), w("settings.source"), w("settings.what")],
                [_other(w, name) for name in names],
                numeric=False,
                class_="wrap",
            ),
        )
        for group in declared.GROUPS
        if (names := [name for name in others if declared.facts(name).group == group])
    ]
    return w.section("settings", table, w.folded(w("settings.others", count=w.derived(len(others), "count")), folded))


def _row(w: Writer, name: str) -> list[Child]:
    what = element("span", _plain(help_text(name, w.lang).what), class_="note")
    named = together(element("code", name), " ", what)
    return [named, shown_value(w, w.facts.config[name]), shown_value(w, declared.default(name)), _source(w, name)]


def _other(w: Writer, name: str) -> list[Child]:
    what = _plain(help_text(name, w.lang).what)
    return [element("code", name), shown_value(w, w.facts.config[name]), _source(w, name), what]


def _plain(text: str) -> str:
    return re.sub("`([^`]*)`", r"\1", text)


def shown_value(w: PageWriter, value: Any) -> Markup:
    """A value of a parameter; without one the program decides, or does nothing of the kind."""
    if value is None:
        return w("not_set")
    if isinstance(value, bool):
        return w("yes" if value else "no")
    if isinstance(value, int | float):
        return element("span", declared.number_words(value), class_="n")
    text = str(value)
    return element("code", text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…")


def _source(w: Writer, name: str) -> Markup:
    label = w.facts.sources.get(name, "default")
    if w.has(f"source.{label}"):
        return w(f"source.{label}")
    kind, _, rest = label.partition(" ")
    return w(f"source.{kind}", name=rest) if w.has(f"source.{kind}") and rest else element("span", label)
