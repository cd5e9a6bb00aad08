"""Values and untrusted text as words: short, of one line, without control characters, markup or secrets."""

from __future__ import annotations

import math
import re
import textwrap
from typing import Any

# Escape sequences go as a whole, so that no "[31m" is left behind: CSI, OSC and other string sequences, two-byte ones.
_ESCAPE_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[ -/]*[0-~]?"
)
# Other control characters, and the bidirectional overrides that reorder what a reader sees.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# An address comes first: where a token is its user, the password behind it is a secret too.
_SECRETS = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|\b(hf_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_-]{16,})\b")

# A command of this program in a sentence: its words, and options with a value each.
_COMMAND = re.compile(r"\bdistillkit [a-z][a-z-]*(?: --[a-z][a-z-]*(?: (?:'[^']*'|[^\s,;)]+))?)*")
# Stands for a blank at which no line is broken; what is sanitized has none.
_KEPT_BLANK = "\x00"


def sanitize(text: str) -> str:
    """`text` without terminal control sequences and access tokens; tabs and line feeds are kept."""
    text = text.replace("\r\n", "\n")
    text = _CONTROL_CHARACTERS.sub("", _ESCAPE_SEQUENCES.sub("", text))
    return _SECRETS.sub("[secret]", text)


def format_duration(seconds: float) -> str:
    """`75` -> `1:15`; `3700` -> `1:01:40`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, second = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def format_bytes(count: float) -> str:
    """`1536` -> `1.5 kB` (decimal units)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(count: int, one: str, several: str = "") -> str:
    """A whole number with its noun: `1 text`, `1,200 texts`; `several` where the noun does not just take an s."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def format_value(value: Any) -> str:
    """One value for a table or a plain line: short, without markup, control characters or secrets."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return sanitize(str(value)).replace("\n", " ")


def wrapped(line: str, width: int) -> str:
    """A line broken between words, each part indented like the whole; paths and commands stay whole, to be copied."""
    indent = line[: len(line) - len(line.lstrip())]
    kept = _COMMAND.sub(lambda command: command.group().replace(" ", _KEPT_BLANK), line)
    filled = textwrap.fill(
        kept, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )
    return filled.replace(_KEPT_BLANK, " ")
