"""Values of the options for texts: which sources are mixed, which encodings and delimiters there can be."""

from __future__ import annotations

import codecs
import difflib
import re
from encodings.aliases import aliases

from distillkit.errors import UsageError

_TAB_WORDS = ("tab", "\\t")
# Codecs of Python that no text file is written in, or that give halves of surrogate pairs, which are no text.
_NO_FILES = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "utf-7"})


# The shortest name that a weight follows: names may have colons (C:\\texts, owner/name:config@revision) and commas of their own.
_SOURCE = re.compile(r"\s*(?P<name>\S.*?)\s*:\s*(?P<weight>\d+(?:\.\d+)?|\.\d+)\s*(?:,|$)")


def mix_sources(value: str) -> dict[str, str]:
    """`mix` as names of sources and their weights, as they are written.

    Raises:
        ValueError: it is not of the form `SOURCE:WEIGHT,SOURCE:WEIGHT`, or names a source twice.
    """
    found: dict[str, str] = {}
    place = 0
    while place < len(value):
        match = _SOURCE.match(value, place)
        if match is None:
            raise ValueError(f"{value[place:].strip()!r} has no weight")
        name, weight = match["name"], match["weight"]
        if name in found:
            raise ValueError(f"{name!r} is named twice")
        if float(weight) == 0:
            raise ValueError(f"the weight of {name!r} is 0")
        found[name] = weight
        place = match.end()
    if len(found) < 2:
        raise ValueError("two sources at least make a mix")
    return found


def check_mix(value: str, where: str) -> None:
    """Refuse what is no mix.

    Args:
        value: of `mix`.
        where: where it came from, for the message.

    Raises:
        UsageError: it is not of the form `SOURCE:WEIGHT,SOURCE:WEIGHT`, or names a source twice.
    """
    try:
        mix_sources(value)
    except ValueError as error:
        raise UsageError(
            f"mix: {error} ({where})", hint="write SOURCE:WEIGHT,SOURCE:WEIGHT, such as wikitext:0.7,./mine.jsonl:0.3"
        ) from error


def delimiter_character(value: str) -> str:
    """`csv_delimiter` as the one character that it means: "tab" and "\\t" are a tab."""
    return "\t" if value.lower() in _TAB_WORDS else value


def check_delimiter(value: str, where: str) -> None:
    """Refuse what cannot part cells.

    Args:
        value: of `csv_delimiter`.
        where: where it came from, for the message.

    Raises:
        UsageError: it is not one character, or a quotation mark, a line end, NUL.
    """
    character = delimiter_character(value)
    if len(character) != 1 or character in "\"'\r\n\0\\" or character.isalnum() or "\ud800" <= character <= "\udfff":
        raise UsageError(
            f"csv_delimiter: {value!r} cannot part cells ({where}); it must be one character, no letter, digit, quote or backslash",
            hint="see: distillkit params csv_delimiter",
        )


def check_encoding(value: str, where: str) -> None:
    """Refuse what Python has no decoder of text files for.

    Args:
        value: of `encoding`.
        where: where it came from, for the message.

    Raises:
        UsageError: there is no such encoding, or it is none of text files.
    """
    known = True
    try:
        codec = codecs.lookup(value)
        known = codec.incrementaldecoder is not None and codec.name not in _NO_FILES
        # Whether it is one of text (`rot13`, `base64` are not) is not said by the public interface; decoding says it.
        b"text".decode(value)
    except UnicodeDecodeError:
        pass  # It is known, and has other bytes.
    except (LookupError, ValueError, ImportError):
        known = False
    if not known:
        near = difflib.get_close_matches(value.lower().replace("-", "_"), [*aliases, *aliases.values()], n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"encoding: {value!r} is no encoding of text files that Python knows ({where})",
            hint=f"{guess}for example utf-8, utf-16, cp1252, cp1251, gb18030, shift_jis",
        )
