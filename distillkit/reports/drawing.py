"""How the pictures of a run look: size, letters, colours, axes, legends, and their files.

Every picture is a PNG and an SVG on an opaque light background, so that it reads on paper, on a dark screen, in grey and
by colour-blind eyes: series differ in line style or hatching as well as in colour (palette: Okabe and Ito, 2008). Printed
80 mm wide, a column of a paper, its smallest letters have 6 points. The same figures give the same bytes. Only matplotlib's
object-oriented API is used: no pyplot, no display, no matplotlibrc.
"""

from __future__ import annotations

import io
import math
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
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from distillkit.console import sanitize
from distillkit.storage import write_bytes

PAPER = "#ffffff"
INK = "#1a1a1a"
FAINT_INK = "#595959"
GRID = "#e3e3e3"
GREY = "#9c9c9c"
BLUE, ORANGE, GREEN, PURPLE, OLIVE = "#0072b2", "#d55e00", "#009e73", "#8f4a7a", "#75700f"
# Of a training without the teacher, in every picture.
CONTROL_DASHES = (0, (4, 1.5))

DPI = 240
WIDTH, HEIGHT = 4.4, 3.45  # inches; at 80 mm a letter of 8.5 points is printed with 6
POINTS, SMALL_POINTS, NAME_POINTS = 9, 8.5, 10.5
WIDEST_TITLE = 245  # points: the width of the narrowest axes
_MOST_LETTERS = 200
# More points than this are drawn faint, with their moving average on top.
MOST_RAW_POINTS = 200
_LARGEST = 1e100
# A value this many times the median of all hides what the others do.
_DWARFING = 5.0

_FONT = "DejaVu Sans"  # comes with matplotlib, so that every machine draws the same letters
NAMES = {"before": "student before", "after": "student after", "control": "no teacher", "teacher": "teacher"}

Points = tuple[np.ndarray, np.ndarray]


# --- figures of a run -------------------------------------------------------------------------------------------------


def finite(value: Any) -> float | None:
    """A number that can be drawn, or None: neither NaN nor so large that the axis limits overflow."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
        return None
    return float(value)


def series(metrics: Sequence[Mapping[str, Any]], name: str) -> Points:
    """The finite values of one column over their steps; of lines with the same step the last one counts."""
    value_at: dict[int, float] = {}
    for line in metrics:
        step, value = finite(line.get("step")), finite(line.get(name))
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


def dwarfs(values: Sequence[float] | np.ndarray) -> bool:
    """Whether the largest of these amounts is so much larger than the usual one that a linear axis hides the rest."""
    amounts = np.abs(np.asarray(values, dtype=np.float64))
    usual = float(np.median(amounts)) if len(amounts) >= 3 else 0.0
    return usual > 0 and float(amounts.max()) >= _DWARFING * usual


def is_logarithmic(several: Sequence[np.ndarray]) -> bool:
    """Whether one of these series, all of them positive, has a value that dwarfs its others."""
    there = [values for values in several if len(values)]
    return all(float(values.min()) > 0 for values in there) and any(dwarfs(values) for values in there)


# --- words ------------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
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


class Ticks(FuncFormatter):
    """`tick_words` for a whole axis: where no label has an exponent, all have the same decimals."""

    def format_ticks(self, values: Any) -> list[str]:
        labels = [tick_words(value) for value in values]
        if any("e" in label for label in labels):
            return labels
        decimals = max((len(label.partition(".")[2]) for label in labels), default=0)
        return [f"{float(label):.{decimals}f}" for label in labels]


def printable(text: str) -> str:
    """A stranger's text on one line that fits above the axes, in letters that the font has."""
    font = FT2Font(fontManager.findfont(FontProperties(family=_FONT)))
    known = font.get_charmap()
    line = " ".join(sanitize(text).split())
    line = "".join(letter if ord(letter) in known else "□" for letter in line)
    font.set_size(SMALL_POINTS, 72)
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


# --- a picture --------------------------------------------------------------------------------------------------------


@contextmanager
def own_style() -> Iterator[None]:
    """matplotlib's defaults plus this module's, whatever the caller or a matplotlibrc has set; restored afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": _FONT, "font.size": POINTS, "svg.hashsalt": "distillkit", "svg.fonttype": "path",
                "xtick.labelsize": SMALL_POINTS, "ytick.labelsize": SMALL_POINTS, "legend.fontsize": SMALL_POINTS,
                "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER, "text.color": INK,
                "axes.edgecolor": FAINT_INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
                "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID,
                "axes.axisbelow": True, "hatch.linewidth": 0.6, "text.parse_math": False,
            }
        )  # fmt: skip
        yield


def empty_figure(height: float = HEIGHT) -> Figure:
    """A figure of the usual width without axes."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))
    return figure


def new_figure(name: str, heading: str, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with the picture's name and the run's one above the other, and its axes from top to bottom."""
    figure = empty_figure(HEIGHT if rows == 1 else 1.3 * HEIGHT)
    all_axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0].tolist()
    put_headings(all_axes[0], name, heading)
    return figure, all_axes


def put_headings(axes: Axes, name: str, heading: str) -> None:
    """The picture's name and the run's, one above the other."""
    axes.set_title(name, loc="left", fontsize=NAME_POINTS, fontweight="bold", pad=21 if heading else 8)
    axes.annotate(
        heading, (0, 1), xytext=(0, 7), xycoords="axes fraction", textcoords="offset points", color=FAINT_INK,
        ha="left", va="bottom", fontsize=SMALL_POINTS,
    )  # fmt: skip


def draw_series(
    axes: Axes, points: Points, *, label: str, color: str, style: Any, marker: str, smooth: bool = True
) -> None:
    """A line over optimizer steps: with markers where there are few, smoothed over a faint one where there are many."""
    steps, values = points
    if not len(steps):
        return
    many = len(steps) > MOST_RAW_POINTS
    if many and smooth:
        axes.plot(steps, values, color=color, linewidth=0.5, alpha=0.25)
        values = moving_average(values, max(5, len(steps) // 40))
    # A line of one or a few points would hardly be seen without its markers.
    every = 1 if len(steps) <= 30 else None
    axes.plot(
        steps, values, color=color, linestyle=style, linewidth=1.5, label=label,
        marker=marker if every else None, markersize=4, markeredgecolor=PAPER, markeredgewidth=0.5,
    )  # fmt: skip


def finish_values(axes: Axes, label: str, *, logarithmic: bool = False) -> None:
    """Label, scale and ticks of the upright axis, once everything is drawn."""
    if logarithmic:
        axes.set_yscale("log")
        # Without its second part: the axis is no longer than a short line.
        label = f"{label.partition(',')[0]} (log scale)"
        low, high = axes.get_ylim()
        # Within one power of ten its multiples are needed, over many they would crowd.
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(label)
    axes.yaxis.set_major_formatter(FuncFormatter(tick_words) if axes.get_yscale() != "linear" else Ticks(tick_words))


def symmetrical_log(axes: Axes, values: np.ndarray) -> None:
    """An upright axis for these values that is logarithmic on either side of zero, and linear up to their median amount."""
    amounts = np.abs(values)
    linear = float(np.median(amounts))
    axes.set_yscale("symlog", linthresh=linear)
    powers = 10.0 ** np.arange(math.ceil(math.log10(linear)), math.ceil(math.log10(float(amounts.max()))) + 1)
    axes.yaxis.set_major_locator(FixedLocator([*(-powers[::-1]), 0.0, *powers]))
    axes.yaxis.set_minor_locator(NullLocator())


def finish_steps(axes: Axes, label: str, *, step_label: bool = True, logarithmic: bool = False) -> None:
    """Labels, ticks and limits of axes over optimizer steps, once everything is drawn."""
    if step_label:
        axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.margins(x=0.03, y=0.1)
    finish_values(axes, label, logarithmic=logarithmic)
    last = axes.dataLim.x1
    # The origin is where the student began; a single line at step 0 still needs a width.
    axes.set_xlim((-0.03 * last, 1.03 * last) if last > 0 else (-0.5, 1))


def put_legend(figure: Figure, axes: Axes, columns: int = 2, heading: str | None = None) -> None:
    """Below the axes, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), frameon=False, handlelength=2.4,
        columnspacing=1.2, labelspacing=0.35, borderpad=0.1, title=heading, title_fontproperties={"size": SMALL_POINTS},
    )  # fmt: skip


# --- files ------------------------------------------------------------------------------------------------------------


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


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": "distillkit"})
    return stream.getvalue()


def _svg(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": "distillkit"})
    return stream.getvalue()
