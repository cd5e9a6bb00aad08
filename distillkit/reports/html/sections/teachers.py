"""Of a run with several teachers: what each counts, what it is worth, and how much of the texts it guides."""

from __future__ import annotations

from distillkit.reports.html.elements import Child, Markup, element, together
from distillkit.reports.html.writer import Writer, looked_up


def teachers(w: Writer) -> Markup | None:
    """A table, with what it means; None of a run with one teacher, or where nothing was measured."""
    measured = w.facts.validation.get("teachers") or []
    if not measured:
        return None
    columns = [
        w("teachers.name"),
        w("teachers.weight"),
        w("score.bits_per_byte"),
        w("score.parameters"),
        w("teachers.guides"),
    ]
    rows = [_row(w, number) for number in range(len(measured))]
    guided = w("teachers.guided", any=w.figure("stats.guided.any", "share"), all=w.figure("stats.guided.all", "share"))
    return together(
        element("h3", w("teachers")), w.table(w.text("teachers"), columns, rows), element("p", guided),
        element("p", w("teachers.words"), class_="note"),
    )  # fmt: skip


def _row(w: Writer, number: int) -> list[Child]:
    """A teacher, from 0."""
    path = f"validation.teachers.{number}"
    name = str(looked_up(w.facts.validation, ["teachers", str(number), "name"]))
    score = [w.figure(f"{path}.bits_per_byte", "score"), w.interval(f"{path}.bits_per_byte_ci95", "score")]
    return [
        element("code", name),
        w.figure(f"{path}.weight", "share"),
        score,
        w.figure(f"{path}.parameters", "count"),
        _guides(w, number),
    ]


def _guides(w: Writer, number: int) -> Markup:
    """Its share of the student's tokens; one that reads them guides all."""
    stats = w.facts.stats
    told = stats if number == 0 else looked_up(stats, ["extra_teachers", str(number - 1)]) or {}
    if told.get("same_tokenizer"):
        return w("teachers.everywhere")
    place = "stats.alignment" if number == 0 else f"stats.extra_teachers.{number - 1}.alignment"
    return w.figure(f"{place}.positions_aligned", "share")
