"""What `compare` does: from the runs that were named to tables, compare.html and a picture."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distillkit import __version__
from distillkit.cli.request import check_surroundings
from distillkit.console import Console, format_bytes, format_duration
from distillkit.durability import weaknesses_reported
from distillkit.interrupts import graceful_signals
from distillkit.reports.html.comparison.facts import ComparisonFacts
from distillkit.reports.html.comparison.sentences import ComparisonWriter, about_texts, differences, headline, notes
from distillkit.reports.html.elements import plain
from distillkit.reports.run_names import short_names
from distillkit.settings.paths import user_path
from distillkit.words import say

_SHORT = 20


@dataclass(frozen=True)
class CompareRequest:
    """What was given to `compare`."""

    runs: tuple[str, ...]
    output_dir: str
    out: str | None
    show: bool
    students_only: bool


def run_compare(request: CompareRequest, console: Console) -> None:
    """`distillkit compare`.

    Raises:
        DistillkitError: as `distillkit.comparing.compare.compare`.
    """
    from distillkit.comparing.compare import compare, comparison_folder, write_comparison

    check_surroundings(console)
    output_dir = user_path(request.output_dir, "--output-dir")
    out = None if request.out is None else user_path(request.out, "--out")
    folder = comparison_folder(out, request.runs[0], output_dir)
    with graceful_signals(), weaknesses_reported(console.warn):
        found = compare(request.runs, output_dir, console, teachers=not request.students_only)
        page, plots = write_comparison(found, folder, console.lang)
    show_comparison(found, console.lang, console)
    console.data(f"page: {page}")
    console.data(f"picture: {plots[0]}")
    if request.show and not webbrowser.open(page.resolve().as_uri()):
        console.warn("there is no browser here that could show it")
    written = {"page": str(page), "plots": [str(plot) for plot in plots]}
    console.json({"command": "compare", "status": "complete", **found, **written})


def show_comparison(found: Mapping[str, Any], lang: str, console: Console) -> None:
    """Tables of scores, differences, settings and costs, and what they say in sentences."""
    w = ComparisonWriter(ComparisonFacts(found, __version__), lang)
    runs, names = found["runs"], short_names(w.facts.names, _SHORT)
    _show_names(w.facts.names, names, lang, console)
    models = w.facts.measured
    rows = [
        [name, *(_score(run["scores"].get(model)) for model in models)] for name, run in zip(names, runs, strict=True)
    ]
    console.table(
        say(lang, "compare.scores"), [say(lang, "compare.run"), *(say(lang, f"short.{model}") for model in models)], rows,
        numeric=range(1, 1 + len(models)), to_stdout=True,
    )  # fmt: skip
    rows = [
        [
            name,
            f"{after['bits_per_byte']:+.4f}",
            _interval(after["ci95"], lang),
            say(lang, f"compare.{after['verdict']}"),
        ]
        for name, run in zip(names[1:], runs[1:], strict=True)
        for after in [run["against_first"]["after"]]
    ]
    columns = [say(lang, f"compare.{key}") for key in ("run", "gain", "interval", "verdict")]
    console.table(say(lang, "compare.students", first=names[0]), columns, rows, numeric=(1, 2), to_stdout=True)
    if found["settings"]:
        rows = [[name, *_short_values(values, lang)] for name, values in found["settings"].items()]
        console.table(say(lang, "compare.settings"), [say(lang, "compare.parameter"), *names], rows, to_stdout=True)
    _show_costs(names, runs, lang, console)
    sentences = [headline(w)] if len(runs) > 2 else []
    for sentence in (*sentences, *differences(w), *about_texts(w), *notes(w)):
        console.prose(plain(sentence))


def _show_names(names: Sequence[str], short: Sequence[str], lang: str, console: Console) -> None:
    """What the short names stand for, where they are short."""
    if list(names) != list(short):
        columns = [say(lang, "compare.called"), say(lang, "compare.run")]
        console.table(say(lang, "compare.names"), columns, list(zip(short, names, strict=True)), to_stdout=True)


def _show_costs(names: Sequence[str], runs: Sequence[Mapping[str, Any]], lang: str, console: Console) -> None:
    figures = [
        ("parameters", [run["parameters"] for run in runs]),
        ("size", [_or_dash(run["size_bytes"], format_bytes) for run in runs]),
        ("writes", [run["generated_tokens_per_second"] for run in runs]),
        ("all", [_or_dash(run["total_seconds"], format_duration) for run in runs]),
        ("training", [_or_dash(run["seconds"].get("distill"), format_duration) for run in runs]),
        ("tokens", [run["train"]["tokens"] for run in runs]),
        ("memory", [_or_dash(run["train"]["peak_memory_bytes"], format_bytes) for run in runs]),
        ("disk", [_or_dash(run["disk_bytes"], format_bytes) for run in runs]),
    ]
    rows = [
        [say(lang, f"cost.{what}"), *values] for what, values in figures if any(value is not None for value in values)
    ]
    numeric = range(1, 1 + len(runs))
    console.table(say(lang, "compare.costs"), ["", *names], rows, numeric=numeric, to_stdout=True)


def _short_values(values: Sequence[Any], lang: str) -> list[Any]:
    """Long texts, paths as a rule, cut in the middle, unless two that differ would look the same; None in words."""
    texts = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    cut = short_names(texts, _SHORT)
    known = dict(zip(texts, cut if len(set(cut)) == len(texts) else texts, strict=True))
    absent = say(lang, "compare.not_set")
    return [absent if value is None else known[value] if isinstance(value, str) else value for value in values]


def _or_dash(value: Any, written: Callable[[float], str]) -> str | None:
    return None if value is None else written(value)


def _score(score: Mapping[str, Any] | None) -> str | None:
    return None if score is None else f"{score['bits_per_byte']:.4f}"


def _interval(ends: Sequence[float] | None, lang: str) -> str:
    return say(lang, "compare.few") if ends is None else f"[{ends[0]:+.4f}, {ends[1]:+.4f}]"
