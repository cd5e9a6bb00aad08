"""Words and figures of the page, in its language. A figure that stands in a file says so, so that a test can compare them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal, Protocol

from distillkit.console import format_duration
from distillkit.reports.html.elements import Child, Markup, element, together
from distillkit.reports.html.facts import ReportFacts
from distillkit.reports.html.words import words

Form = Literal["score", "gain", "share", "count", "seconds", "bytes", "plain", "short", "millions"]

_LARGEST = 1e100


def finite(value: Any) -> float | None:
    """A number that can be shown and drawn, or None: neither NaN nor without bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
        return None
    return float(value)


def looked_up(content: Any, path: Sequence[str]) -> Any:
    """The value at a path of keys and indices; None where there is none."""
    for step in path:
        if isinstance(content, Mapping):
            content = content.get(step)
        elif isinstance(content, Sequence) and not isinstance(content, str) and step.isdecimal():
            content = content[int(step)] if int(step) < len(content) else None
        else:
            return None
    return content


class Facts(Protocol):
    """What a page is about, as far as figures are concerned."""

    def content(self, file: str) -> Mapping[str, Any]:
        """The content of a JSON file, by the name that `data-of` gives it."""
        ...


@dataclass(frozen=True)
class PageWriter:
    """Writes the parts of any page.

    Attributes:
        facts: what it is about.
        lang: "en" or "ru".
    """

    facts: Facts
    lang: str

    def __call__(self, key: str, **parts: Child) -> Markup:
        """The words of a key, with `parts` in their places; KeyError for an unknown key."""
        pieces: list[Child] = []
        for text, name, _, _ in Formatter().parse(words(self.lang)[key]):
            pieces += [text, parts[name] if name is not None else None]
        return together(*pieces)

    def text(self, key: str, **parts: str) -> str:
        """The same as text, for attributes and drawings."""
        return words(self.lang)[key].format(**parts)

    def has(self, key: str) -> bool:
        """Whether there are words for a key."""
        return key in words(self.lang)

    # --- figures ---

    def figure(self, path: str, form: Form) -> Markup:
        """`validation.after.bits_per_byte` as it stands in its file; a dash where it is not there.

        Args:
            path: the name of the file (`ReportFacts.content`), then keys and indices.
        """
        file, *keys = path.split(".")
        value = looked_up(self.facts.content(file), keys)
        if finite(value) is None:
            return self.dash()
        return element("data", self.shown(value, form), value=repr(value), data_of=path, class_="n")

    def derived(self, value: float | None, form: Form) -> Markup:
        """A figure that is computed from others."""
        if finite(value) is None:
            return self.dash()
        assert value is not None
        return element("span", self.shown(value, form), class_="n")

    def interval(self, path: str, form: Form) -> Markup | None:
        """`[0.005, 0.024]`, or None where there is none."""
        file, *keys = path.split(".")
        ends = looked_up(self.facts.content(file), keys)
        if not isinstance(ends, Sequence) or len(ends) != 2 or any(finite(end) is None for end in ends):
            return None
        low, high = (self.figure(f"{path}.{index}", form) for index in range(2))
        return element("span", "[", low, self.text("list.separator"), high, "]", class_="interval")

    def dash(self) -> Markup:
        """For a figure that is not known."""
        return element("span", "–", aria_label=self.text("unknown"), role="img")

    def shown(self, value: float, form: Form) -> str:
        """A number as the language writes it."""
        if form == "seconds":
            return format_duration(value)
        if form == "bytes":
            return self._bytes(value)
        if form == "share":
            return self._decimal(f"{100 * value:.1f}") + self.text("percent")
        if form == "millions" and value >= 1e6:
            size, unit = (value / 1e9, "billion") if value >= 1e9 else (value / 1e6, "million")
            return self._decimal(f"{size:.3g}" if size < 1000 else f"{size:,.0f}") + self.text(unit)
        if form in ("count", "millions"):
            return self._decimal(f"{value:,.0f}")
        if form in ("score", "gain"):
            sign = "+" if form == "gain" else ""
            text = f"{value:{sign}.4f}" if abs(value) < 1000 else f"{value:{sign}.4g}"
        elif form == "short":
            text = f"{value:.3g}" if abs(value) < 1e5 else f"{value:.2e}"
        else:
            text = f"{value:,.2f}" if abs(value) < 1e6 else f"{value:.3g}"
        return self._decimal(text)

    def _decimal(self, text: str) -> str:
        text = text.replace("-", "−")
        if self.lang == "ru":
            return text.replace(",", "\N{NO-BREAK SPACE}").replace(".", ",")
        return text

    def _bytes(self, count: float) -> str:
        units = self.text("units").split()
        place = 0
        while abs(count) >= 1000 and place < len(units) - 1:
            count, place = count / 1000, place + 1
        digits = 0 if place == 0 or count >= 100 else 1
        return self._decimal(f"{count:.{digits}f}") + "\N{NO-BREAK SPACE}" + units[place]

    def share_of(self, part: float, whole: float) -> float | None:
        """`part / whole`; None where there is no whole."""
        return part / whole if whole > 0 and math.isfinite(part / whole) else None

    # --- parts of a page ---

    def section(self, name: str, *children: Child) -> Markup:
        """A section with its heading; its anchor is its name."""
        heading = element("h2", self(f"section.{name}"), id=f"h-{name}")
        return element("section", heading, *children, id=name, aria_labelledby=f"h-{name}")

    def missing(self, key: str, command: str | None = None, **parts: Child) -> Markup:
        """What is not there, why, and what makes it."""
        how = None if command is None else together(" ", self("missing.make"), " ", element("code", command))
        return element("p", self(key, **parts), how, class_="missing")

    def table(
        self,
        caption: str,
        columns: Sequence[Child],
        rows: Sequence[Sequence[Child]],
        *,
        numeric: bool = True,
        class_: str | None = None,
    ) -> Markup:
        """A table whose first column names the rows; it scrolls by itself where the page is too narrow.

        Args:
            caption: what it shows, for those who hear it.
            numeric: all columns but the first hold numbers.
        """
        kind = "num" if numeric else None
        head = [
            element("th", column, scope="col", class_=kind if place else None) for place, column in enumerate(columns)
        ]
        body = [
            element("tr", element("th", row[0], scope="row"), [element("td", cell, class_=kind) for cell in row[1:]])
            for row in rows
        ]
        table = element(
            "table", element("caption", caption, class_="heard"), element("thead", element("tr", head)),
            element("tbody", body), class_=class_,
        )  # fmt: skip
        return element("div", table, class_="scroll", role="group", aria_label=caption, tabindex=0)

    def pairs(self, rows: Sequence[tuple[Child, Child]]) -> Markup:
        """A list of what and how much."""
        return element("dl", [element("div", element("dt", what), element("dd", found)) for what, found in rows])

    def folded(self, title: Child, *children: Child) -> Markup:
        """What is shown when it is asked for."""
        return element("details", element("summary", title), *children)

    def model(self, name: str) -> Markup:
        """`before` -> `student before`."""
        return self(f"model.{name}")


@dataclass(frozen=True)
class Writer(PageWriter):
    """Writes the parts of the report of a run."""

    facts: ReportFacts
