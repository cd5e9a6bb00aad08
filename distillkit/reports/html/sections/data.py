"""The texts: how many, how both tokenizers read them, and how much of them the teacher reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillkit.reports.html.elements import Child, Markup, element, together
from distillkit.reports.html.sections.verdict import HERE
from distillkit.reports.html.writer import Form, Writer

_COLUMNS: tuple[tuple[str, Form], ...] = (
    ("examples", "count"), ("documents", "count"), ("bytes", "bytes"), ("student_tokens", "count"),
    ("teacher_tokens", "count"),
)  # fmt: skip


def data(w: Writer) -> Markup:
    """The section."""
    stats = w.facts.stats
    if not stats:
        return w.section("data", w.missing("data.missing", f"distillkit prepare-data {HERE}"))
    return w.section("data", _amounts(w), _facts(w), _alignment(w), _tokens(w))


def _amounts(w: Writer) -> Markup:
    splits = w.facts.stats.get("splits") or {}
    rows = [
        [w(f"data.{part}"), *(w.figure(f"stats.splits.{part}.{key}", form) for key, form in _COLUMNS)]
        for part in ("train", "validation", "test") if part in splits
    ]  # fmt: skip
    return w.table(w.text("data.table"), ["", *(w(f"data.{key}") for key, _ in _COLUMNS)], rows)


def _facts(w: Writer) -> Markup:
    stats = w.facts.stats
    rows: list[tuple[Child, Child]] = [(w("data.source"), str(stats.get("source", "–")))]
    dropped = [
        w(f"data.dropped.{key}", texts=w.figure(f"stats.dropped.{key}", "count"))
        for key in ("inexact", "too_short") if (stats.get("dropped") or {}).get(key)
    ]  # fmt: skip
    rows.append((w("data.dropped"), _listed(dropped) if dropped else w("data.dropped.none")))
    if duplicates := sum((stats.get("duplicates") or {}).values()):
        rows.append((w("data.duplicates"), w.derived(duplicates, "count")))
    chats = stats.get("conversations")
    if chats:
        rows.append((w("data.conversations"), w(f"data.train_on.{chats.get('train_on', 'assistant')}")))
        for side in ("student", "teacher"):
            template = chats.get(side) or {}
            end = element("code", str(template.get("end_of_turn", "–")))
            rows.append(
                (w(f"data.template.{side}"), w("data.template", origin=str(template.get("origin", "–")), end=end))
            )
    rows.append((w("data.tokenizers"), w(f"data.tokenizers.{_kind(stats)}")))
    return w.pairs(rows)


def _listed(parts: Sequence[Markup]) -> Markup:
    return together([[part, "; " if place < len(parts) - 1 else None] for place, part in enumerate(parts)])


def _kind(stats: Mapping[str, Any]) -> str:
    if stats.get("served"):
        return "served"
    if stats.get("same_tokenizer"):
        return "same"
    return "templates" if (stats.get("conversations") or {}).get("one_tokenizer") else "different"


def _alignment(w: Writer) -> Markup | None:
    if not w.facts.stats.get("alignment"):
        return None
    keys = ("positions_aligned", "bytes_aligned", "positions_on_boundaries", "mass_mapped")
    rows = [(w(f"data.{key}"), w.figure(f"stats.alignment.{key}", "share")) for key in keys]
    return together(element("h3", w("data.alignment")), w.pairs(rows))


def _tokens(w: Writer) -> Markup:
    """A text token by token, as both tokenizers read it."""
    shown = w.facts.stats.get("tokens_of_a_text") or {}
    heading = element("h3", w("tokens"))
    sides = [side for side in ("student", "teacher") if shown.get(side)]
    if not sides:
        return together(heading, w.missing("tokens.missing"))
    ends = {side: [int(end) for end in shown[side]] for side in sides}
    if len(sides) == 2 and ends["student"] == ends["teacher"]:
        about = w("tokens.same", count=w.derived(len(ends["student"]), "count"))
        return together(heading, element("p", about), _strip(w, shown["text"], ends["student"], set(), "tokens.both"))
    parts = [heading, element("p", w("tokens.about"))]
    for side in sides:
        other = {end for name in sides if name != side for end in ends[name]}
        alone = {end for end in ends[side] if other and end not in other}
        parts.append(
            element("p", w(f"tokens.{side}", count=w.derived(len(ends[side]), "count"),
                           alone=w.derived(len(alone), "count")), class_="note")
        )  # fmt: skip
        parts.append(_strip(w, shown["text"], ends[side], alone, f"tokens.label.{side}"))
    return together(parts)


def _strip(w: Writer, text: str, ends: Sequence[int], alone: set[int], label: str) -> Markup:
    """The tokens one after another; a border that the other model does not share is dashed."""
    content = text.encode("utf-8", "replace")
    begin, parts = 0, []
    for end in ends:
        piece = content[begin:end].decode("utf-8", "replace")
        piece = piece.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥") or "∅"
        parts.append(element("span", piece, class_="own" if end in alone else None))
        begin = end
    return element("div", parts, class_="tokens", role="group", aria_label=w.text(label), dir="ltr")
