"""The charts of the page: curves over steps, dots on a common scale, a histogram, bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distillkit.reports.html.drawing import (
    WIDE,
    Scale,
    horizontal_axis,
    label,
    log_ticks,
    mark_label,
    tick_words,
    ticks,
    vertical_axis,
)
from distillkit.reports.html.elements import Markup, element

# More points than this are averaged: the eye cannot tell them, and the page would grow with the training.
MOST_POINTS = 240
_LOG_FROM = 20

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """A series over steps.

    Attributes:
        series: a class of the style sheet, `s-…`.
        points: (step, value), steps ascending.
        marked: each point has a dot.
    """

    series: str
    points: Points
    marked: bool = False


def averaged(points: Points, most: int = MOST_POINTS) -> tuple[Points, int]:
    """At most `most` points, each the mean of so many neighbours (the second result) in step and value."""
    size = -(-len(points) // most) if points else 1
    if size <= 1:
        return points, 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups], size


def line_chart(
    width: int, curves: Sequence[Curve], *, x_label: str, decimal: str, levels: Sequence[tuple[str, float]] = ()
) -> tuple[int, list[Markup]]:
    """Curves over steps. Where a value dwarfs the rest by a factor of twenty the axis is one of factors.

    Args:
        levels: series and value of horizontal lines.

    Returns:
        The height, and what is in the picture.
    """
    height = 300 if width == WIDE else 240
    left, right, top, bottom = 52.0, width - 10.0, 10.0, height - 40.0
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points] + [value for _, value in levels]
    low, high = min(ys), max(ys)
    middle = sorted(ys)[len(ys) // 2]
    log = low > 0 and high > _LOG_FROM * middle
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    # A scale of what is never negative does not begin below zero.
    y_low = max(0.0, low - margin) if low >= 0 else low - margin
    ends = (low / 1.1, high * 1.1) if log else (y_low, high + margin)
    y = Scale(*ends, bottom, top, log)
    x = Scale(min(xs), max(xs), left, right) if max(xs) > min(xs) else Scale(min(xs) - 1, max(xs) + 1, left, right)
    marks = log_ticks(*ends) if log else ticks(*ends)
    steps = ticks(x.low, x.high, 6 if width == WIDE else 4, whole=True)
    parts = [
        vertical_axis(y, marks, tick_words(marks, decimal), left, right),
        *(mark_label(x(step), bottom + 17, f"{step:,.0f}".replace(",", "\N{NO-BREAK SPACE}"), width) for step in steps),
        label((left + right) / 2, height - 4, x_label, anchor="middle", class_="axis"),
    ]
    for series, value in levels:
        parts.append(element("line", x1=left, x2=right, y1=y(value), y2=y(value), class_=f"line thin s-{series}"))
    for curve in curves:
        places = [(x(step), y(value)) for step, value in averaged(curve.points)[0]]
        drawn = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
        parts.append(element("polyline", points=drawn, class_=f"line s-{curve.series}"))
        if curve.marked or len(places) == 1:
            parts += [element("circle", cx=a, cy=d, r=3.0, class_=f"dot s-{curve.series}") for a, d in places]
    return height, parts


@dataclass(frozen=True)
class DotRow:
    """A row of dots.

    Attributes:
        name: what the row is.
        dots: (series, value, low, high); low and high are the ends of an interval, or None.
        note: a text at the right end.
    """

    name: str
    dots: Sequence[tuple[str, float, float | None, float | None]]
    note: str = ""


def dot_chart(
    width: int, rows: Sequence[DotRow], *, x_label: str, decimal: str, zero: bool = False
) -> tuple[int, list[Markup]]:
    """Values on a common scale, a row for each thing; the dots of a row are joined, an interval is a bar behind its dot.

    Args:
        zero: the scale reaches to zero, where a line is.
    """
    wide = width == WIDE
    # On a narrow page the name of a row stands above it.
    left, step, first = (196.0, 34.0, 18.0) if wide else (10.0, 46.0, 30.0)
    right = width - (70.0 if wide else 14.0)
    bottom = first + step * (len(rows) - 1) + 16
    values = [x for row in rows for dot in row.dots for x in dot[1:] if x is not None]
    low, high = min([0.0] * zero + values), max([0.0] * zero + values)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    low, high = (0.0 if not zero and low >= 0 and low < 0.4 * high else low - margin), high + margin
    x = Scale(low, high, left, right)
    marks = ticks(low, high, 6 if wide else 4)
    parts = [horizontal_axis(x, marks, tick_words(marks, decimal), first - 12, bottom, width)]
    if zero:
        parts.append(element("line", x1=x(0), x2=x(0), y1=first - 12, y2=float(bottom), class_="zero"))
    for number, row in enumerate(rows):
        y = first + step * number
        parts.append(label(left - 14, y + 4, row.name, anchor="end", class_="name") if wide else
                     label(left, y - 12, row.name, class_="name"))  # fmt: skip
        if row.note:
            parts.append(label(width, y + 4 if wide else y - 12, row.note, anchor="end", class_="value"))
        places = [x(value) for _, value, _, _ in row.dots]
        if len(places) > 1:
            parts.append(element("line", x1=min(places), x2=max(places), y1=y, y2=y, class_="join"))
        for series, value, start, end in row.dots:
            if start is not None and end is not None:
                parts.append(element("line", x1=x(start), x2=x(end), y1=y, y2=y, class_=f"whisker s-{series}"))
            parts.append(element("circle", cx=x(value), cy=y, r=5.0, class_=f"dot s-{series}"))
    parts.append(label((left + right) / 2, bottom + 34, x_label, anchor="middle", class_="axis"))
    return int(bottom + 40), parts


def histogram(width: int, values: Sequence[float], *, x_label: str, decimal: str) -> tuple[int, list[Markup]]:
    """How many values lie where; bars left of zero are losses, those right of it gains.

    The outermost bars hold what lies beyond: one odd text does not squeeze all others into one bar.
    """
    height = 220 if width == WIDE else 190
    left, right, top, bottom = 36.0, width - 10.0, 12.0, height - 42.0
    low, high, size = bins(values)
    counts = [0] * round((high - low) / size)
    for value in values:
        counts[min(len(counts) - 1, max(0, int((value - low) // size)))] += 1
    x, y = Scale(low, high, left, right), Scale(0, max(counts), bottom, top)
    marks, sums = ticks(low, high, 7 if width == WIDE else 4), ticks(0, max(counts), 4, whole=True)
    parts = [vertical_axis(y, sums, tick_words(sums, decimal), left, right)]
    for number, count in enumerate(counts):
        if count:
            start = low + number * size
            kind = "gain" if start > -size / 2 else "loss"
            across = x(start) + 1
            parts.append(
                element("rect", x=across, y=y(count), width=x(start + size) - 1 - across, height=bottom - y(count),
                        class_=f"bar {kind}")
            )  # fmt: skip
    if low < 0 < high:
        parts.append(element("line", x1=x(0), x2=x(0), y1=top, y2=bottom, class_="zero"))
    parts += [
        mark_label(x(mark), bottom + 16, text, width)
        for mark, text in zip(marks, tick_words(marks, decimal), strict=True)
    ]
    parts.append(label((left + right) / 2, height - 4, x_label, anchor="middle", class_="axis"))
    return height, parts


def bins(values: Sequence[float], wanted: int = 18) -> tuple[float, float, float]:
    """(low, high, size) of equal bins that hold nearly all values; zero is an edge, so that no bar is gain and loss."""
    ordered = sorted(values)
    cut = len(ordered) // 100
    low, high = ordered[cut], ordered[-1 - cut]
    low, high = min(low, 0.0), max(high, 0.0)
    if not high > low:
        return -0.5, 0.5, 0.5
    marks = ticks(low, high, wanted)
    size = marks[1] - marks[0] if len(marks) > 1 else (high - low) / wanted
    first, last = math.floor(low / size), math.ceil(high / size)
    return first * size, max(last, first + 1) * size, size


@dataclass(frozen=True)
class Bar:
    """A bar: its value, and whether it is filled or hollow."""

    value: float
    filled: bool


def bar_chart(width: int, bars: Sequence[Bar], *, x_label: str, decimal: str) -> tuple[int, list[Markup]]:
    """Bars, numbered from 0."""
    height = 240 if width == WIDE else 200
    left, right, top, bottom = 52.0, width - 6.0, 10.0, height - 40.0
    values = [bar.value for bar in bars]
    low, high = min(0.0, *values), max(values)
    positive = sorted(value for value in values if value > 0)
    log = len(positive) == len(values) and high > _LOG_FROM * positive[len(positive) // 2]
    ends = (min(values) / 1.5, high * 1.1) if log else (low, high * 1.05 or 1.0)
    y = Scale(*ends, bottom, top, log)
    marks = log_ticks(*ends) if log else ticks(*ends)
    parts = [vertical_axis(y, marks, tick_words(marks, decimal), left, right)]
    each = (right - left) / len(bars)
    every = max(1, -(-len(bars) * (22 if len(bars) > 10 else 14) // int(right - left)))
    for number, bar in enumerate(bars):
        start, base = left + number * each, y(max(0.0, ends[0]))
        thick = max(1.0, each * 0.72)
        parts.append(
            element("rect", x=start + (each - thick) / 2, y=min(y(bar.value), base), width=thick,
                    height=max(1.0, abs(base - y(bar.value))), class_=f"bar {'gain' if bar.filled else 'hollow'}")
        )  # fmt: skip
        if number % every == 0:
            parts.append(label(start + each / 2, bottom + 16, str(number), anchor="middle"))
    parts.append(label((left + right) / 2, height - 4, x_label, anchor="middle", class_="axis"))
    return height, parts
