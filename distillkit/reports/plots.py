"""The pictures of a run: loss terms, held-out score, learning rate, the student before and after beside its teacher, and which
of the teacher's layers it has.

Every picture is a PNG and an SVG on an opaque light background, so that it reads on paper, on a dark screen, in grey and
by colour-blind eyes: series differ in line style or hatching as well as in colour (palette: Okabe and Ito, 2008). The
same figures give the same bytes. Only matplotlib's object-oriented API is used: no pyplot, no display, no matplotlibrc.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from distillkit.console import sanitize
from distillkit.storage import write_bytes

PAPER = "#ffffff"
INK = "#1a1a1a"
FAINT_INK = "#595959"
GRID = "#e3e3e3"
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#8f4a7a"

DPI = 160
WIDEST_TITLE = 490  # points: the width of the narrowest axes
_MOST_LETTERS = 200
# More points than this are drawn faint, with their moving average on top.
MOST_RAW_POINTS = 200
_LARGEST = 1e100

_TITLE_POINTS = 10
_FONT = "DejaVu Sans"  # comes with matplotlib, so that every machine draws the same letters
_NAMES = {"before": "student before", "after": "student after", "control": "no teacher", "teacher": "teacher"}

Points = tuple[np.ndarray, np.ndarray]


def draw_plots(
    metrics: Sequence[Mapping[str, Any]],
    validation: Mapping[str, Any] | None,
    folder: Path,
    *,
    title: str,
    cut: Mapping[str, Any] | None = None,
    control: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """Draw every picture for which there are figures.

    Args:
        metrics: the lines of metrics.jsonl; values that are missing or not finite are left out.
        validation: the content of validation.json, where the student was validated.
        folder: an existing folder; files of the same name are replaced.
        title: the name of the run, shown on every picture.
        cut: the content of data/cut.json, of a student that is cut from its teacher.
        control: the lines of control/metrics.jsonl, where the same student was trained without the teacher.

    Returns:
        The files written (`loss`, `score`, `learning_rate`, `comparison`, `layers`, each .png and .svg); [] without any
        figures.

    Raises:
        DistillkitError: a picture cannot be written.
    """
    written: list[Path] = []
    with own_style():
        heading = printable(title)
        for name, figure in (
            ("loss", _loss(metrics, heading)),
            ("score", _score(metrics, control, validation or {}, heading)),
            ("learning_rate", _learning_rate(metrics, heading)),
            ("comparison", _comparison(validation or {}, heading)),
            ("layers", _layers(cut or {}, heading)),
        ):
            if figure is not None:
                written += write_figure(figure, folder, name)
    return written


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg.

    Raises:
        DistillkitError: one cannot be written.
    """
    written: list[Path] = []
    for suffix, content in (("png", _png(figure)), ("svg", _svg(figure))):
        path = folder / f"{name}.{suffix}"
        write_bytes(path, content)
        written.append(path)
    return written


def _loss(metrics: Sequence[Mapping[str, Any]], heading: str) -> Figure | None:
    total, soft, hard = (_series(metrics, name) for name in ("loss", "soft_loss", "hard_loss"))
    series = [("total", total, BLUE, "-", "o"), ("hard: the true tokens", hard, ORANGE, "--", "s")]
    # Plain fine-tuning (alpha 0) has no soft term: its column is nothing but zeros.
    if np.any(soft[1]):
        series.insert(1, ("soft: what the teacher says", soft, GREEN, "-.", "^"))
    if not any(len(points[0]) for _, points, *_ in series):
        return None
    figure, (axes,) = _new_figure("Training loss", heading)
    for label, points, color, style, marker in series:
        _draw_series(axes, points, label=label, color=color, style=style, marker=marker)
    _finish_axes(axes, "nats per target token, lower is better")
    smoothed = any(len(points[0]) > MOST_RAW_POINTS for _, points, *_ in series)
    _legend(figure, axes, heading="thick: moving average, faint: every logged step" if smoothed else None)
    return figure


def _score(
    metrics: Sequence[Mapping[str, Any]],
    control: Sequence[Mapping[str, Any]],
    validation: Mapping[str, Any],
    heading: str,
) -> Figure | None:
    steps, scores = points = _series(metrics, "eval_bits_per_byte")
    if not len(steps):
        return None
    figure, (axes,) = _new_figure("Held-out score of the student", heading)
    _draw_series(axes, points, label="student, validation texts", color=BLUE, style="-", marker="o")
    untaught = _series(control, "eval_bits_per_byte")
    _draw_series(
        axes, untaught, label="control without teacher, validation texts", color=PURPLE, style=(0, (4, 1.5)), marker="s"
    )
    best = int(np.argmin(scores))
    axes.plot(
        steps[best], scores[best], linestyle="none", marker="*", markersize=15, color=ORANGE, markeredgecolor=INK,
        markeredgewidth=0.8, zorder=5, label=f"best: {_number(scores[best])} at step {steps[best]:,}",
    )  # fmt: skip
    # The verdict is measured on other texts than the curve: the lines say so, they are no exact target.
    for name, color, style in (("before", FAINT_INK, ":"), ("teacher", GREEN, "--")):
        value = _bits_per_byte(validation, name)
        if value is not None:
            axes.axhline(
                value, color=color, linestyle=style, linewidth=1.6,
                label=f"{_NAMES[name]}, test texts: {_number(value)}",
            )  # fmt: skip
    _finish_axes(axes, "bits per byte, lower is better")
    _legend(figure, axes, columns=2)
    return figure


def _learning_rate(metrics: Sequence[Mapping[str, Any]], heading: str) -> Figure | None:
    panels = [
        (points, label, color, style, marker)
        for points, label, color, style, marker in (
            (_series(metrics, "learning_rate"), "learning rate", BLUE, "-", "o"),
            (_series(metrics, "grad_norm"), "gradient norm", PURPLE, "-", "s"),
        )
        if len(points[0])
    ]
    if not panels:
        return None
    name = " and ".join(label for _, label, *_ in panels).capitalize()
    figure, all_axes = _new_figure(name, heading, rows=len(panels))
    for axes, (points, label, color, style, marker) in zip(all_axes, panels, strict=True):
        _draw_series(
            axes, points, label=label, color=color, style=style, marker=marker, smooth=label == "gradient norm"
        )
        positive = points[1][points[1] > 0]
        if label == "gradient norm" and len(positive) == len(points[1]) and positive.max() > 50 * positive.min():
            axes.set_yscale("log")
            label += " (log scale)"
        _finish_axes(axes, label, step_label=axes is all_axes[-1])
        if label == "learning rate":
            top = max(float(points[1].max()), 1e-6)
            axes.set_ylim(-0.04 * top, 1.08 * top)
    return figure


def _comparison(validation: Mapping[str, Any], heading: str) -> Figure | None:
    bars = [
        (name, value, color, hatch)
        for name, color, hatch in (
            ("before", "#9c9c9c", ""),
            ("control", PURPLE, "\\\\"),
            ("after", BLUE, "//"),
            ("teacher", GREEN, ".."),
        )
        if (value := _bits_per_byte(validation, name)) is not None
    ]
    if not bars:
        return None
    figure, (axes,) = _new_figure("Held-out texts: before, after, teacher", heading)
    for place, (_, value, color, hatch) in enumerate(bars):
        axes.bar(place, value, width=0.6, color=color, hatch=hatch, edgecolor=PAPER, linewidth=0)
        axes.annotate(
            _number(value), (place, value), xytext=(0, 4), textcoords="offset points", ha="center", va="bottom",
            fontsize=12, fontweight="bold",
        )  # fmt: skip
    axes.set_xticks(range(len(bars)), [_NAMES[name] for name, *_ in bars], fontsize=11)
    axes.set_xlim(-0.6, len(bars) - 0.4)
    axes.set_ylim(0, max(value for _, value, *_ in bars) * 1.12 or 1)
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("bits per byte, lower is better")
    axes.yaxis.set_major_formatter(_Ticks(tick_words))
    figure.supxlabel("\n".join(_outcome(validation)), fontsize=9.5, color=FAINT_INK)
    return figure


# The scores that data/cut.json may have, the one that decided first.
_SCORES = (
    ("losses_without", "loss without the layer, nats per token"),
    ("influence", "influence: 1 - mean cosine of input and output"),
)


def _layers(cut: Mapping[str, Any], heading: str) -> Figure | None:
    kept = set(cut.get("kept") or ())
    name, label = next(((name, label) for name, label in _SCORES if cut.get(name)), ("", ""))
    values = {
        layer: number for layer, value in enumerate(cut.get(name) or ()) if (number := _finite(value)) is not None
    }
    if not values:
        return None
    figure, (axes,) = _new_figure("The teacher's layers, and which the student has", heading)
    for inside, color, hatch, words in ((True, BLUE, "", "kept"), (False, PAPER, "//", "left out")):
        layers = [layer for layer in values if (layer in kept) == inside]
        if layers:
            axes.bar(
                layers, [values[layer] for layer in layers], width=0.8, color=color, hatch=hatch, edgecolor=BLUE,
                linewidth=0.8, label=f"{words}: {len(layers)}",
            )  # fmt: skip
    lowest, highest = min(values.values()), max(values.values())
    if lowest > 0 and highest > 50 * lowest:
        axes.set_yscale("log")
        label += " (log scale)"
    axes.set_xlabel(f"layer; chosen by: {printable(str(cut.get('way')))}")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(FuncFormatter(tick_words) if axes.get_yscale() == "log" else _Ticks(tick_words))
    axes.grid(axis="x", visible=False)
    _legend(figure, axes)
    return figure


def _outcome(validation: Mapping[str, Any]) -> list[str]:
    """The verdict in one or two lines."""
    gain = validation.get("gain") or {}
    first_line: list[str] = []
    estimate = _finite(gain.get("bits_per_byte"))
    if estimate is not None:
        gained = f"gain {_number(estimate)} bits per byte"
        ends = [end for end in map(_finite, gain.get("ci95") or ()) if end is not None]
        if len(ends) == 2:
            gained += f" (95% interval {_number(ends[0])} to {_number(ends[1])})"
        first_line.append(gained)
    teachers = _finite((validation.get("teacher_gain") or {}).get("bits_per_byte"))
    if teachers is not None:
        first_line.append(f"the teacher's part of it {_number(teachers)}")
    closed = _finite(validation.get("gap_closed"))
    if closed is not None:
        first_line.append(f"gap to the teacher closed: {closed:.0%}")
    second_line: list[str] = []
    if validation.get("verdict"):
        second_line.append(f"verdict: {printable(str(validation['verdict']))}")
    for name in ("documents", "bytes"):
        count = _finite(validation.get(name))
        if count is not None:
            second_line.append(f"{count:,.0f} {name if count != 1 else name[:-1]}")
    return [", ".join(statements) for statements in (first_line, second_line) if statements]


def _finite(value: Any) -> float | None:
    """A number that can be drawn, or None: neither NaN nor so large that the axis limits overflow."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
        return None
    return float(value)


def _number(value: float) -> str:
    """`0.98124` -> `0.9812`; a diverged model's figure stays short too."""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"


def tick_words(value: float, _place: int | None = None) -> str:
    """`0.0004` -> `4e-4`, `2.5` -> `2.5`: no offset in the corner, where the name of the run stands."""
    if abs(value) < 1e-12:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:.6g}"
    digits, exponent = f"{value:.3e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


class _Ticks(FuncFormatter):
    """`tick_words` for a whole axis: where no label has an exponent, all have the same decimals."""

    def format_ticks(self, values: Any) -> list[str]:
        labels = [tick_words(value) for value in values]
        if any("e" in label for label in labels):
            return labels
        decimals = max((len(label.partition(".")[2]) for label in labels), default=0)
        return [f"{float(label):.{decimals}f}" for label in labels]


def _bits_per_byte(validation: Mapping[str, Any], name: str) -> float | None:
    """The figure of one of the three models; None where it is missing or cannot be drawn."""
    return _finite((validation.get(name) or {}).get("bits_per_byte"))


def _series(metrics: Sequence[Mapping[str, Any]], name: str) -> Points:
    """The finite values of one column over their steps; of lines with the same step the last one counts."""
    value_at: dict[int, float] = {}
    for line in metrics:
        step, value = _finite(line.get("step")), _finite(line.get(name))
        if step is not None and value is not None:
            value_at[int(step)] = value
    steps = sorted(value_at)
    return np.array(steps, dtype=np.int64), np.array([value_at[step] for step in steps], dtype=np.float64)


def moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """Centred mean over `width` neighbours; at the ends over those that are there.

    Args:
        values: [N].

    Returns:
        [N], without the dip towards zero that padding would give the ends.
    """
    if len(values) == 0 or width <= 1:
        return values
    reach = width // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _draw_series(
    axes: Axes, points: Points, *, label: str, color: str, style: Any, marker: str, smooth: bool = True
) -> None:
    """A line over optimizer steps: with markers where there are few, smoothed over a faint one where there are many."""
    steps, values = points
    if not len(steps):
        return
    many = len(steps) > MOST_RAW_POINTS
    if many and smooth:
        axes.plot(steps, values, color=color, linewidth=0.7, alpha=0.25)
        values = moving_average(values, max(5, len(steps) // 40))
    # A line of one or a few points would hardly be seen without its markers.
    every = 1 if len(steps) <= 30 else None
    axes.plot(
        steps, values, color=color, linestyle=style, linewidth=2.0, label=label,
        marker=marker if every else None, markersize=5, markeredgecolor=PAPER, markeredgewidth=0.6,
    )  # fmt: skip


@contextmanager
def own_style() -> Iterator[None]:
    """matplotlib's defaults plus this module's, whatever the caller or a matplotlibrc has set; restored afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": _FONT, "font.size": 10, "svg.hashsalt": "distillkit", "svg.fonttype": "path",
                "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER, "text.color": INK,
                "axes.edgecolor": FAINT_INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
                "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID,
                "axes.axisbelow": True, "hatch.linewidth": 0.8, "text.parse_math": False,
            }
        )  # fmt: skip
        yield


def _new_figure(name: str, heading: str, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with the picture's name and the run's one above the other, and its axes from top to bottom."""
    figure = Figure(figsize=(8, 4.8 if rows == 1 else 5.6), dpi=DPI)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    all_axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0].tolist()
    put_headings(all_axes[0], name, heading)
    return figure, all_axes


def put_headings(axes: Axes, name: str, heading: str) -> None:
    """The picture's name and the run's, one above the other."""
    axes.set_title(name, loc="left", fontsize=13, fontweight="bold", pad=26 if heading else 10)
    axes.annotate(
        heading, (0, 1), xytext=(0, 9), xycoords="axes fraction", textcoords="offset points", color=FAINT_INK,
        ha="left", va="bottom", fontsize=_TITLE_POINTS,
    )  # fmt: skip


def _finish_axes(axes: Axes, label: str, *, step_label: bool = True) -> None:
    """Labels, ticks and limits of axes over optimizer steps, once everything is drawn."""
    axes.set_ylabel(label)
    if step_label:
        axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.yaxis.set_major_formatter(FuncFormatter(tick_words) if axes.get_yscale() == "log" else _Ticks(tick_words))
    axes.margins(x=0.03, y=0.1)
    last = axes.dataLim.x1
    # The origin is where the student began; a single line at step 0 still needs a width.
    axes.set_xlim((-0.03 * last, 1.03 * last) if last > 0 else (-1, 1))


def _legend(figure: Figure, axes: Axes, columns: int = 3, heading: str | None = None) -> None:
    """Below the axes, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), frameon=False, handlelength=3.2,
        title=heading, title_fontproperties={"size": 9.5},
    )  # fmt: skip


def printable(text: str) -> str:
    """A stranger's text on one line that fits above the axes, in letters that the font has."""
    font = FT2Font(fontManager.findfont(FontProperties(family=_FONT)))
    known = font.get_charmap()
    line = " ".join(sanitize(text).split())
    line = "".join(letter if ord(letter) in known else "□" for letter in line)
    font.set_size(_TITLE_POINTS, 72)
    shown, kept = line, min(len(line), _MOST_LETTERS)
    while len(shown) > _MOST_LETTERS or _width(shown, font) > WIDEST_TITLE:
        # Both ends tell runs apart: the models at the beginning, the moment at the end.
        kept -= 1
        shown = f"{line[: kept - kept // 2].rstrip()}…{line[len(line) - kept // 2 :].lstrip()}"
    return shown


def _width(line: str, font: FT2Font) -> float:
    """The width of a line in points."""
    font.set_text(line)
    return font.get_width_height()[0] / 64  # in 26.6 fixed point


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": "distillkit"})
    return stream.getvalue()


def _svg(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": "distillkit"})
    return stream.getvalue()
