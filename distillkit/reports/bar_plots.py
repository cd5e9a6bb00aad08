"""Pictures of what a run came to: before, control, after and teacher; single documents; the layers that the student has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from distillkit.reports.curve_plots import bits_per_byte
from distillkit.reports.document_gains import document_gains
from distillkit.reports.drawing import (
    BLUE,
    FAINT_INK,
    GREEN,
    GREY,
    INK,
    NAMES,
    ORANGE,
    PAPER,
    PURPLE,
    SMALL_POINTS,
    Ticks,
    dwarfs,
    finish_values,
    finite,
    new_figure,
    number,
    printable,
    put_legend,
    symmetrical_log,
    tick_words,
)

# The scores that data/cut.json may have, the one that decided first.
_SCORES = (("losses_without", "loss without it, nats per token"), ("influence", "1 − cosine of input and output"))


def comparison_plot(validation: Mapping[str, Any], heading: str) -> Figure | None:
    """Bits per byte of the models, and the verdict in words."""
    bars = [
        (name, value, color, hatch)
        for name, color, hatch in (
            ("before", GREY, ""), ("control", PURPLE, "\\\\"), ("after", BLUE, "//"), ("teacher", GREEN, ".."),
        )
        if (value := bits_per_byte(validation, name)) is not None
    ]  # fmt: skip
    if not bars:
        return None
    figure, (axes,) = new_figure("Held-out texts", heading)
    for place, (_, value, color, hatch) in enumerate(bars):
        axes.bar(place, value, width=0.6, color=color, hatch=hatch, edgecolor=PAPER, linewidth=0)
        axes.annotate(
            number(value), (place, value), xytext=(0, 3), textcoords="offset points", ha="center", va="bottom",
            fontweight="bold",
        )  # fmt: skip
    axes.set_xticks(range(len(bars)), [NAMES[name].replace(" ", "\n") for name, *_ in bars])
    axes.set_xlim(-0.6, len(bars) - 0.4)
    axes.set_ylim(0, max(value for _, value, *_ in bars) * 1.14 or 1)
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("bits per byte, lower is better")
    axes.yaxis.set_major_formatter(Ticks(tick_words))
    figure.supxlabel("\n".join(outcome_lines(validation)), fontsize=SMALL_POINTS, color=FAINT_INK)
    return figure


def outcome_lines(validation: Mapping[str, Any]) -> list[str]:
    """The gain, what part of it is the teacher's, and the verdict, each a line short enough for a picture."""
    gain = validation.get("gain") or {}
    lines: list[str] = []
    estimate = finite(gain.get("bits_per_byte"))
    if estimate is not None:
        gained = f"gain {number(estimate)} bits per byte"
        ends = [end for end in map(finite, gain.get("ci95") or ()) if end is not None]
        lines.append(gained + (f", 95% [{number(ends[0])}, {number(ends[1])}]" if len(ends) == 2 else ""))
    parts: list[str] = []
    teachers = finite((validation.get("teacher_gain") or {}).get("bits_per_byte"))
    if teachers is not None:
        parts.append(f"the teacher's part {number(teachers)}")
    closed = finite(validation.get("gap_closed"))
    if closed is not None and gain.get("ci95"):  # Of a handful of texts it would be read as measured.
        parts.append(f"{closed:.0%} of the gap closed")
    lines += [", ".join(parts)] if parts else []
    parts = [f"verdict: {printable(str(validation['verdict']))}"] if validation.get("verdict") else []
    for name in ("documents", "bytes"):
        count = finite(validation.get(name))
        if count is not None:
            parts.append(f"{count:,.0f} {name if count != 1 else name[:-1]}")
    return [*lines, ", ".join(parts)] if parts else lines


def gains_plot(details: Mapping[str, Any], heading: str) -> Figure | None:
    """The gain of every held-out document, sorted: how many got better, how evenly it is spread."""
    gains = np.array(
        [value for one in document_gains(details) if (value := finite(one.gain)) is not None], dtype=np.float64
    )
    if len(gains) < 2:
        return None
    figure, (axes,) = new_figure("Gain of each held-out document", heading)
    # A step for each document; the edges are half-way between them.
    edges = np.arange(len(gains) + 1) + 0.5
    heights = np.append(gains, gains[-1])
    for inside, color, hatch, words in (
        (gains > 0, BLUE, "", "better"), (gains <= 0, ORANGE, "////", "not better"),
    ):  # fmt: skip
        if inside.any():
            axes.fill_between(
                edges, np.where(np.append(inside, inside[-1]), heights, 0.0), step="post", facecolor=color, hatch=hatch,
                edgecolor=PAPER if hatch else color, linewidth=0, label=f"{words}: {inside.sum():,}",
            )  # fmt: skip
    axes.axhline(0, color=INK, linewidth=0.8)
    middle = float(np.median(gains))
    axes.axhline(middle, color=INK, linestyle=":", linewidth=1.3, label=f"median: {middle:+.4f}")
    label = "bits per byte, higher is better"
    if dwarfs(gains):
        symmetrical_log(axes, gains)
        label = "bits per byte (log scale)"
    finish_values(axes, label)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("documents, sorted by gain")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda place, _: f"{place:,.0f}")
    axes.grid(axis="x", visible=False)
    put_legend(figure, axes, columns=3)
    return figure


def layers_plot(cut: Mapping[str, Any], heading: str) -> Figure | None:
    """What the choice of the layers was measured by, of those that the student has and of the others."""
    kept = set(cut.get("kept") or ())
    name, label = next(((name, label) for name, label in _SCORES if cut.get(name)), ("", ""))
    values = {layer: score for layer, value in enumerate(cut.get(name) or ()) if (score := finite(value)) is not None}
    if not values:
        return None
    figure, (axes,) = new_figure("The teacher's layers", heading)
    for inside, color, hatch, words in ((True, BLUE, "", "kept"), (False, PAPER, "//", "left out")):
        layers = [layer for layer in values if (layer in kept) == inside]
        if layers:
            axes.bar(
                layers, [values[layer] for layer in layers], width=0.8, color=color, hatch=hatch, edgecolor=BLUE,
                linewidth=0.6, label=f"{words}: {len(layers)}",
            )  # fmt: skip
    lowest, highest = min(values.values()), max(values.values())
    finish_values(axes, label, logarithmic=lowest > 0 and highest > 50 * lowest)
    axes.set_xlabel(f"layer; chosen by: {printable(str(cut.get('way')))}")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.grid(axis="x", visible=False)
    put_legend(figure, axes)
    return figure
