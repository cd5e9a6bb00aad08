"""The sections of compare.html."""

from __future__ import annotations

from collections.abc import Sequence

from distillkit.reports.html.charts import DotRow, dot_chart
from distillkit.reports.html.comparison.sentences import ComparisonWriter, differences
from distillkit.reports.html.drawing import legend, picture
from distillkit.reports.html.elements import Child, Markup, element, together
from distillkit.reports.html.sections.settings import shown_value
from distillkit.reports.html.writer import Form, finite, looked_up
from distillkit.reports.run_names import short_names

# Letters of a name of a row of a chart, and of the head of a column.
ROW, COLUMN = 20, 18

_COSTS: tuple[tuple[str, str, Form], ...] = (
    ("score.parameters", "parameters", "count"),
    ("score.size_bytes", "size_bytes", "bytes"),
    ("score.generated_tokens_per_second", "generated_tokens_per_second", "plain"),
    ("compare.time", "total_seconds", "seconds"),
    ("cost.train.steps", "train.steps", "count"),
    ("cost.train.tokens", "train.tokens", "count"),
    ("cost.train.speed", "train.tokens_per_second", "plain"),
    ("cost.train.memory", "train.peak_memory_bytes", "bytes"),
    ("cost.pass.tokens", "teacher_pass.tokens", "count"),
    ("cost.pass.cache", "teacher_pass.cache_bytes", "bytes"),
    ("compare.disk", "disk_bytes", "bytes"),
)


def scores(w: ComparisonWriter) -> Markup:
    """Every model of every run on the same texts."""
    measured = w.facts.measured
    names = short_names(w.facts.names, ROW)
    rows, told = [], []
    for name, run in zip(names, w.facts.runs, strict=True):
        dots = [
            (model, float(found["bits_per_byte"]), None, None)
            for model in measured if finite((found := run["scores"].get(model) or {}).get("bits_per_byte")) is not None
        ]  # fmt: skip
        shown = w.shown(run["scores"]["after"]["bits_per_byte"], "score")
        # What is drawn last lies on top: the student.
        rows.append(DotRow(name, sorted(dots, key=lambda dot: dot[0] == "after"), shown))
        told.append(f"{name}: {shown}")
    chart = picture(
        lambda width: dot_chart(width, rows, x_label=w.text("axis.bits"), decimal=w.text("decimal")),
        f"{w.text('compare.scores.chart')}. {'; '.join(told)}",
        w("compare.scores.chart"),
        legend([(model, w.model(model)) for model in measured], dots=True),
    )
    table: list[list[Child]] = []
    for place, name in enumerate(names):
        path = f"comparison.runs.{place}"
        cells = [w.figure(f"{path}.scores.{model}.bits_per_byte", "score") for model in measured]
        share = [
            w.figure(f"{path}.teacher_gain.bits_per_byte", "gain"),
            w.interval(f"{path}.teacher_gain.ci95", "gain"),
        ]
        table.append([w.run(name), *cells, share])
    columns = [w("compare.run"), *(w.model(model) for model in measured), w("compare.share")]
    return w.section(
        "run_scores", chart, w.table(w.text("compare.scores.table"), columns, table),
        element("p", w("compare.scores.words"), class_="note"),
    )  # fmt: skip


def pairs(w: ComparisonWriter) -> Markup:
    """By how much each run is better than the first one, with the interval of the difference."""
    names = short_names(w.facts.names, ROW)
    rows = []
    for name, run in zip(names[1:], w.facts.runs[1:], strict=True):
        after = run["against_first"]["after"]
        low, high = (finite(looked_up(after, ["ci95", end])) for end in "01")
        rows.append(
            DotRow(name, [("after", float(after["bits_per_byte"]), low, high)], w.shown(after["bits_per_byte"], "gain"))
        )
    told = "; ".join(f"{row.name}: {row.note}" for row in rows)
    axis = w.text("compare.pairs.axis", first=names[0])
    chart = picture(
        lambda width: dot_chart(width, rows, x_label=axis, decimal=w.text("decimal"), zero=True),
        f"{w.text('compare.pairs.chart')}. {told}",
        w("compare.pairs.chart"),
    )
    table: list[list[Child]] = []
    for place, name in enumerate(names[1:], 1):
        path = f"comparison.runs.{place}.against_first"
        table.append(
            [
                w.run(name),
                *(
                    [w.figure(f"{path}.{model}.bits_per_byte", "gain"), w.interval(f"{path}.{model}.ci95", "gain")]
                    for model in w.facts.measured
                ),
            ]
        )
    columns = [w("compare.run"), *(w.model(model) for model in w.facts.measured)]
    sentences = [element("p", sentence) for sentence in differences(w)] if len(w.facts.runs) > 2 else None
    return w.section(
        "differences", sentences, chart, w.table(w.text("compare.pairs.table"), columns, table),
        element("p", w("compare.pairs.words"), class_="note"),
    )  # fmt: skip


def settings(w: ComparisonWriter) -> Markup:
    """The parameters that are not the same in all runs."""
    differing = w.facts.comparison["settings"]
    if not differing:
        return w.section("what_differs", element("p", w("compare.settings.none")))
    rows = [[element("code", name), *(shown_value(w, value) for value in values)] for name, values in differing.items()]
    table = w.table(
        w.text("section.what_differs"), [w("settings.parameter"), *_heads(w)], rows, numeric=False, class_="wrap"
    )
    return w.section("what_differs", table)


def costs(w: ComparisonWriter) -> Markup:
    """Size, speed, time, memory, disk, and the times of the stages."""
    rows = [
        [w(key), *(w.figure(f"comparison.runs.{place}.{path}", form) for place in range(len(w.facts.runs)))]
        for key, path, form in _COSTS
        if any(finite(looked_up(run, path.split("."))) is not None for run in w.facts.runs)
    ]
    stages = list(dict.fromkeys(name for run in w.facts.runs for name in run["seconds"]))
    times = [
        [
            w(f"stage.{name}") if w.has(f"stage.{name}") else element("code", name),
            *(w.derived(run["seconds"].get(name), "seconds") for run in w.facts.runs),
        ]
        for name in stages
    ]
    figures = w.table(w.text("cost.figures"), ["", *_heads(w)], rows)
    if not times:
        return w.section("costs", figures)
    return w.section(
        "costs",
        figures,
        element("h3", w("cost.times")),
        w.table(w.text("cost.times"), [w("cost.stage"), *_heads(w)], times),
    )


def the_runs(w: ComparisonWriter) -> Markup:
    """What is compared, with full names and places."""
    parts: list[Markup] = []
    for number, run in enumerate(w.facts.runs, 1):
        device = " ".join(str(run["device"][key]) for key in ("type", "name", "precision") if run["device"].get(key))
        rows: Sequence[tuple[Child, Child]] = [
            (w("compare.place"), element("code", str(run["run"]))),
            (w("model.teacher"), element("code", str(run["teacher_model"]))),
            (w("compare.student"), element("code", str(run["student_model"]))),
            (
                w("compare.made"),
                f"{str(run['created']).replace('T', ' ').partition('+')[0]} UTC, distillkit {run['distillkit']}",
            ),
            (w("cost.device"), device or w.dash()),
        ]
        parts.append(together(element("h3", str(number), ". ", w.run(str(run["name"]))), w.pairs(rows)))
    return w.section("the_runs", parts)


def _heads(w: ComparisonWriter) -> list[Markup]:
    return [w.run(name) for name in short_names(w.facts.names, COLUMN)]
