"""HTML elements. Every text goes through `element`, which escapes it; only what it has made itself counts as markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias, Union

from distillkit.console import sanitize

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_TAG = re.compile("<[^>]*>")
_VOID = frozenset({"meta", "link"})
# What reorders or hides the text around it: marks of direction, tags, variation selectors of no visible form.
_HIDDEN = re.compile("[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f]")
_NO_TEXT = re.compile("[\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Markup(str):
    """HTML that `element` has made."""

    __slots__ = ()


Child: TypeAlias = Union[str, Iterable["Child"], None]  # noqa: UP007


def visible(text: str) -> str:
    """`text` with nothing in it that a reader cannot see: control characters as their pictures (U+2400 …), marks that turn
    the direction of the text around them as their code points; without access tokens."""
    text = _CONTROL.sub(lambda found: chr(0x2400 + ord(found[0])), text.replace("\r\n", "\n"))
    text = _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)
    # Nothing is left that `sanitize` would take away but secrets.
    return sanitize(_NO_TEXT.sub("\ufffd", text))


def escaped(text: str) -> Markup:
    """A text as HTML shows it."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(text), quote=True))


def together(*children: Child) -> Markup:
    """Children, one after another."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, str):
            parts.append(escaped(child))
        elif child is not None:
            parts.append(together(*child))
    return Markup("".join(parts))


def element(tag: str, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """`<tag attributes>children</tag>`.

    Args:
        children: texts, which are escaped; markup, which is not; None, which is nothing; several of them.
        attributes: `class_` is `class`, `aria_label` is `aria-label`; None or False leaves one out, True has no value.

    Raises:
        ValueError: a name is none that HTML has, or a link leads out of the page.
    """
    names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
    if any(not _NAME.fullmatch(name) for name in (tag, *names.values())):
        raise ValueError(f"no names of HTML: {tag}, {', '.join(names.values())}")
    written: list[str] = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        text = _number(value)
        if name in ("href", "src") and not text.startswith(("#", "data:,")):
            raise ValueError(f"a link out of the page: {text}")
        written.append(f" {names[name]}" if value is True else f' {names[name]}="{escaped(text)}"')
    opening = f"<{tag}{''.join(written)}>"
    return Markup(opening if tag in _VOID else f"{opening}{together(*children)}</{tag}>")


def _number(value: str | int | float) -> str:
    """Coordinates with two decimals at most: more is nothing that an eye can see."""
    return f"{round(value, 2):g}" if isinstance(value, float) else str(value)


def plain(markup: Markup) -> str:
    """What a reader sees of markup, for a terminal."""
    return html.unescape(_TAG.sub("", markup))
