"""What the charts have in common: scales, marks on axes, and a picture that fits a wide and a narrow page.

Each chart is drawn twice, for a wide page and for a phone, so that its letters have the size of the text around it in both; the
style sheet shows one of them. Colours and line styles are classes of the style sheet, which knows the colour scheme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distillkit.reports.html.elements import Markup, element, together

WIDE, NARROW = 720, 328
# About as wide as a digit of a label.
LETTER = 7.6
_DASH = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Scale:
    """From values to places in the picture; `log` for factors instead of differences.

    Attributes:
        low, high: the values at both ends.
        first, last: the places at both ends.
    """

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; what lies outside is put on the edge."""
        low, high, value = (math.log10(max(x, 1e-300)) if self.log else x for x in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.first + min(1.0, max(0.0, share)) * (self.last - self.first)


def ticks(low: float, high: float, wanted: int = 5, *, whole: bool = False) -> list[float]:
    """Round values between `low` and `high`, about `wanted` of them.

    Args:
        whole: only whole numbers.
    """
    if not high > low:
        return [low]
    rough = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * factor for factor in (1, 2, 2.5, 5, 10)), key=lambda step: abs((high - low) / step - wanted))
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values on an axis of factors: powers of ten, with 2 and 5 between them where there is room."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) <= wanted + 2:
            break
    return found[:: max(1, len(found) // (wanted + 2))] or [low, high]


def tick_words(values: Sequence[float], decimal: str = ".") -> list[str]:
    """Labels of marks, all with the same decimals; large and tiny ones with an exponent."""
    largest = max(map(abs, values), default=0.0)
    if largest >= 1e6 or 0 < largest < 1e-3:
        texts = [f"{value:.3g}" if value else "0" for value in values]
    else:
        decimals = next(
            (d for d in range(7) if all(abs(round(v, d) - v) <= 1e-9 * max(1.0, abs(v)) for v in values)), 6
        )
        texts = [f"{value:.{decimals}f}" for value in values]
    return [text.replace("-", _DASH).replace(".", decimal) for text in texts]


def label(x: float, y: float, text: str, *, anchor: str = "start", class_: str = "tick") -> Markup:
    """A text in a picture; `y` is its base line."""
    return element("text", text, x=float(x), y=float(y), text_anchor=anchor, class_=class_)


def mark_label(x: float, y: float, text: str, width: int) -> Markup:
    """The label of a mark on a horizontal axis, moved inwards where it would leave the picture."""
    half = 0.5 * LETTER * len(text) + 1
    return label(min(max(x, half), width - half), y, text, anchor="middle")


def picture(
    draw: Callable[[int], tuple[int, Sequence[Markup]]], description: str, caption: Markup, legend: Markup | None = None
) -> Markup:
    """A chart with its caption.

    Args:
        draw: for a width, the height and what is in the picture.
        description: what it shows, for those who do not see it.
        legend: what its marks mean.
    """
    drawn = []
    for width, name in ((WIDE, "wide"), (NARROW, "narrow")):
        height, parts = draw(width)
        size = {"viewBox": f"0 0 {width} {height}", "width": width, "height": height}
        drawn.append(element("svg", *parts, class_=name, role="img", aria_label=description, **size))
    return element("figure", element("figcaption", caption), legend, *drawn)


def swatch(series: str, *, dot: bool = False) -> Markup:
    """A line, or a dot, in the style of a series, for a legend."""
    mark = (
        element("circle", cx=11.0, cy=6.0, r=4.5, class_=f"dot s-{series}")
        if dot
        else element("line", x1=0, y1=6, x2=22, y2=6, class_=f"line s-{series}")
    )
    return element("svg", mark, class_="swatch", viewBox="0 0 22 12", width=22, height=12, aria_hidden="true")


def legend(entries: Sequence[tuple[str, Markup]], *, dots: bool = False) -> Markup:
    """What the series of a chart are: their marks and names."""
    items = [element("li", swatch(series, dot=dots), " ", words) for series, words in entries]
    return element("ul", items, class_="legend")


def vertical_axis(scale: Scale, marks: Sequence[float], words: Sequence[str], left: float, right: float) -> Markup:
    """Grid lines and labels of an axis that stands on the left."""
    parts = []
    for value, text in zip(marks, words, strict=True):
        y = scale(value)
        parts.append(element("line", x1=float(left), x2=float(right), y1=y, y2=y, class_="grid"))
        parts.append(label(left - 6, y + 4, text, anchor="end"))
    return together(parts)


def horizontal_axis(
    scale: Scale, marks: Sequence[float], words: Sequence[str], top: float, bottom: float, width: int
) -> Markup:
    """Grid lines and labels of an axis that lies at the bottom."""
    parts = []
    for value, text in zip(marks, words, strict=True):
        x = scale(value)
        parts.append(element("line", x1=x, x2=x, y1=float(top), y2=float(bottom), class_="grid"))
        parts.append(mark_label(x, bottom + 16, text, width))
    return together(parts)
