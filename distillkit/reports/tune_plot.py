"""The picture of a search: every trial's validation score against its learning rate, and against what else was searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from distillkit.reports.drawing import (
    BLUE,
    FAINT_INK,
    GREEN,
    GREY,
    HEIGHT,
    INK,
    ORANGE,
    PAPER,
    PURPLE,
    SMALL_POINTS,
    empty_figure,
    own_style,
    printable,
    put_headings,
    tick_words,
    write_figure,
)

# Of the rungs from the shortest trials to the longest; what comes before the last ones shares the first.
_RUNGS = ((GREY, "o"), (PURPLE, "s"), (GREEN, "^"), (BLUE, "D"))
# What has small axes of its own, where more than one value of it was tried.
_SMALL = ("temperature", "alpha", "divergence")


def draw_tune_plot(found: Mapping[str, Any], folder: Path, *, title: str) -> list[Path]:
    """Draw tune.png and tune.svg.

    Args:
        found: the content of tune/result.json.
        folder: an existing folder; files of the same name are replaced.
        title: the name of the run.

    Returns:
        The files written; [] where every trial diverged.

    Raises:
        DistillkitError: a picture cannot be written.
    """
    trials = [trial for trial in found["all_trials"] if trial["bits_per_byte"] is not None]
    if not trials:
        return []
    others = [name for name in _SMALL if len({trial["settings"].get(name) for trial in trials}) > 1]
    with own_style():
        figure = empty_figure((1.6 if others else 1) * HEIGHT)
        main, *small = _axes(figure, len(others))
        _draw(main, trials, "learning_rate", found["best"], legend=True)
        main.set_xscale("log")
        main.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        main.xaxis.set_major_formatter(FuncFormatter(tick_words))
        main.xaxis.set_minor_formatter(NullFormatter())
        main.set_xlabel("learning rate")
        main.set_ylabel("validation bits per byte")
        for axes, name in zip(small, others, strict=True):
            values = sorted({trial["settings"][name] for trial in trials})
            _draw(axes, trials, name, found["best"], places={value: place for place, value in enumerate(values)})
            words = [value if isinstance(value, str) else f"{value:g}" for value in values]
            turned = {"rotation": 20, "ha": "right"} if name == "divergence" else {}
            axes.set_xticks(range(len(values)), words, **turned)
            axes.set_xlim(-0.5, len(values) - 0.5)
            axes.set_xlabel(name, labelpad=2)
            axes.tick_params(axis="y", labelleft=axes is small[0])
        put_headings(main, "Search: score of every trial", printable(title))
        handles, labels = main.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL_POINTS)
        return write_figure(figure, folder, "tune")


def _axes(figure: Figure, small: int) -> list[Axes]:
    """The large axes, and small ones below it side by side."""
    if not small:
        return [figure.subplots(1, 1)]
    grid = figure.add_gridspec(2, small, height_ratios=(1.5, 1))
    main = figure.add_subplot(grid[0, :])
    return [main, *(figure.add_subplot(grid[1, column], sharey=main) for column in range(small))]


def _draw(
    axes: Axes,
    trials: Sequence[Mapping[str, Any]],
    name: str,
    best: Mapping[str, Any],
    *,
    places: Mapping[Any, int] | None = None,
    legend: bool = False,
) -> None:
    """All trials over one parameter, by how long they trained, and the best one on top."""

    def place(trial: Mapping[str, Any]) -> float:
        value = trial["settings"][name]
        return value if places is None else places[value]

    lengths = sorted({_passes(trial) for trial in trials})
    styles = [*[_RUNGS[0]] * (len(lengths) - len(_RUNGS)), *_RUNGS[-len(lengths) :]]
    for length, (color, marker) in zip(lengths, styles, strict=True):
        points = [trial for trial in trials if _passes(trial) == length]
        axes.plot(
            [place(trial) for trial in points], [trial["bits_per_byte"] for trial in points], linestyle="none",
            marker=marker, markersize=5 if legend else 4, color=color, markeredgecolor=PAPER, markeredgewidth=0.5,
            label=f"{length:,} text{'' if length == 1 else 's'} read",
        )  # fmt: skip
    axes.plot(
        place(best), best["bits_per_byte"], linestyle="none", marker="*", markersize=11 if legend else 9, color=ORANGE,
        markeredgecolor=INK, markeredgewidth=0.8, zorder=5, label=f"best: {best['bits_per_byte']:.4f}",
    )  # fmt: skip
    axes.tick_params(colors=FAINT_INK)


def _passes(trial: Mapping[str, Any]) -> int:
    return trial["texts"] * trial["epochs"]
