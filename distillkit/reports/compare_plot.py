"""The picture of a comparison: the scores of all runs on the same texts, and by how much each is better than the first.

It is small, so that its letters can be read where it is printed 80 mm wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from distillkit.reports.drawing import (
    BLUE,
    FAINT_INK,
    GREEN,
    INK,
    PAPER,
    PURPLE,
    own_style,
    printable,
    write_figure,
)
from distillkit.reports.run_names import short_names

NAME = "compare"
_WIDTH_INCHES = 3.6
_DOTS_PER_INCH = 300
_ROW_INCHES = 0.3
_LETTERS = 18
_SMALL = 7.5
# Series differ in shape as well as in colour.
_MODELS = (
    ("before", "before", "#7d7d7d", "s"),
    ("control", "no teacher", PURPLE, "D"),
    ("teacher", "teacher", GREEN, "^"),
    ("after", "after", BLUE, "o"),
)


def draw_comparison(comparison: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw compare.png and compare.svg.

    Args:
        comparison: as `distillkit.comparing.result` gives it.
        folder: an existing folder; files of the same name are replaced.

    Raises:
        DistillkitError: a picture cannot be written.
    """
    runs = comparison["runs"]
    with own_style():
        names = short_names([printable(str(run["name"])) for run in runs], _LETTERS)
        # Each panel has its title, its axis and its label; the upper one has the legend too.
        height = 2.2 + _ROW_INCHES * (2 * len(runs) - 1)
        figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DOTS_PER_INCH)
        figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.05))
        upper, lower = figure.subplots(2, 1, height_ratios=[len(runs) + 1, len(runs)])
        _draw_scores(upper, names, runs)
        _draw_differences(lower, names, runs)
        handles, labels = upper.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=_SMALL,
            handletextpad=0.2, columnspacing=1.0,
        )  # fmt: skip
        return write_figure(figure, folder, NAME)


def _draw_scores(axes: Axes, names: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> None:
    for place, run in enumerate(runs):
        values = [found["bits_per_byte"] for found in run["scores"].values()]
        axes.plot([min(values), max(values)], [place, place], color="#d0d0d0", linewidth=2.5, zorder=1)
    for key, label, color, marker in _MODELS:
        found = [(run["scores"][key]["bits_per_byte"], place) for place, run in enumerate(runs) if key in run["scores"]]
        if found:
            axes.plot(
                *zip(*found, strict=True), linestyle="none", marker=marker, color=color, markersize=5.5, label=label,
                markeredgecolor=PAPER, markeredgewidth=0.5, zorder=3,
            )  # fmt: skip
    _finish(axes, names, "Scores on the same texts", "bits per byte, lower is better")


def _draw_differences(axes: Axes, names: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> None:
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    for place, run in enumerate(runs[1:]):
        after = run["against_first"]["after"]
        if after["ci95"] is not None:
            axes.plot(
                after["ci95"], [place, place], color=BLUE, linewidth=4, alpha=0.35, solid_capstyle="butt", zorder=2
            )
        axes.plot(
            after["bits_per_byte"], place, marker="o", color=BLUE, markersize=5.5, markeredgecolor=PAPER, zorder=3
        )
    _finish(axes, names[1:], f"Better than {names[0]}", "bits per byte; bar: 95 % interval")


def _finish(axes: Axes, names: Sequence[str], title: str, label: str) -> None:
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold", pad=5)
    axes.set_yticks(range(len(names)), names, fontsize=_SMALL + 0.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(label, fontsize=_SMALL, color=FAINT_INK)
    axes.tick_params(axis="x", labelsize=_SMALL)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.08)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=2))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
