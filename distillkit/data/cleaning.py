"""Tidying texts without losing anything: line ends, blank edges; case, quotes and spacing stay as they are."""

from __future__ import annotations

import hashlib

_BLANKS = " \t\n\f\v"


def clean_text(text: str) -> str:
    """`text` with LF line ends, without blank lines at its start and without blanks at its end.

    The indentation of the first line stays. The result is empty where `text` holds nothing but blanks.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        return ""
    return text[_blank_lines_end(text) :].rstrip(_BLANKS)


def leading_blank_lines(text: str) -> int:
    """How many blank lines `clean_text` takes away at the start of a text with LF line ends."""
    return text.count("\n", 0, _blank_lines_end(text))


def _blank_lines_end(text: str) -> int:
    # No pattern: one that repeats remembers every repeat, gigabytes for a file of line ends.
    return text.rfind("\n", 0, len(text) - len(text.lstrip(_BLANKS))) + 1


def text_digest(text: str) -> bytes:
    """Sixteen bytes that are equal for texts that differ in white space only."""
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8"), digest_size=16).digest()
