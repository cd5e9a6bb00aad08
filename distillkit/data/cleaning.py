"""Tidying texts without losing anything: line ends, blank edges; case, quotes and spacing stay as they are."""

from __future__ import annotations

import hashlib
import re

_BLANK_LINES_AT_START = re.compile(r"(?:[ \t\f\v]*\n)+")


def clean_text(text: str) -> str:
    """`text` with LF line ends, without blank lines at its start and without blanks at its end.

    The indentation of the first line stays. The result is empty where `text` holds nothing but blanks.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        return ""
    blank = _BLANK_LINES_AT_START.match(text)
    if blank:
        text = text[blank.end() :]
    return text.rstrip(" \t\n\f\v")


def leading_blank_lines(text: str) -> int:
    """How many blank lines `clean_text` takes away at the start of a text with LF line ends."""
    blank = _BLANK_LINES_AT_START.match(text)
    return blank.group().count("\n") if blank else 0


def text_digest(text: str) -> bytes:
    """Sixteen bytes that are equal for texts that differ in white space only."""
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8"), digest_size=16).digest()
