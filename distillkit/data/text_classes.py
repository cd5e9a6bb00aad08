"""What one value looks like: prose, a few words, an identifier, an address, a date, a number …

Every pattern is linear in the length of a value, and only the beginning of a long value is looked at.
"""

from __future__ import annotations

import json
import re

# A text shows what it is in its beginning.
_BEGINNING = 500
# Only shorter values are tried as JSON.
_LONGEST_JSON = 100_000

# Words that spaces part are counted; those of writing without spaces are estimated.
_HAN_AND_KANA = re.compile(
    r"[\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_SOUTH_EAST_ASIAN = re.compile(r"[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff]")
_HAN_PER_WORD, _SOUTH_EAST_ASIAN_PER_WORD = 2, 5

_SENTENCE_END = re.compile(r"[.!?…。！？।॥؟۔።։:;」』”\"')\]}»*_]$")
_LIST_MARKS = re.compile(r"[,;|/、，；]")

_NUMBER = re.compile(r"[+-]?(?:(?:\d[\d_ ]*)?[.,]\d+|\d[\d_ ]*(?<=\d))(?:[eE][+-]?\d+)?")
_ADDRESS = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+.-]{1,15}:)?//\S+|www\.\S+|(?:mailto|data|urn|doi|magnet):\S+|10\.\d{4,9}/\S+"
)
_EMAIL = re.compile(r"[^@\s]{1,200}@[^@\s]{3,200}")
_UUID = re.compile(r"\{?[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}\}?")
_HEX = re.compile(r"(?:0x|sha\d{1,3}[:-]|md5[:-])?[0-9a-fA-F]{12,}")
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ]?[\d:.,Z+ -]*(?:UTC|GMT)?)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}[\d:., ]*(?:[AaPp]\.?[Mm]\.?)?"
)
_TIME_WORDS = frozenset((
    "jan", "january", "feb", "february", "mar", "march", "apr", "april", "may", "jun", "june", "jul", "july", "aug",
    "august", "sep", "sept", "september", "oct", "october", "nov", "november", "dec", "december", "mon", "monday",
    "tue", "tues", "tuesday", "wed", "wednesday", "thu", "thur", "thurs", "thursday", "fri", "friday", "sat",
    "saturday", "sun", "sunday", "am", "pm", "gmt", "utc", "at", "of", "on", "st", "nd", "rd", "th", "t", "z", "est",
    "edt", "cst", "cdt", "mst", "mdt", "pst", "pdt", "cet", "cest", "bc", "ad", "bce", "ce",
))  # fmt: skip
_FILE = re.compile(r"(?:[A-Za-z]:)?[^\s/\\]*(?:[/\\][^\s/\\]*)*\.[A-Za-z0-9]{1,6}")
_PATH = re.compile(r"(?:[A-Za-z]:[/\\]|[~.]{0,2}/)?[^\s/\\]+(?:[/\\][^\s/\\]*)+")
_VERSION = re.compile(r"[vV]?\d+(?:\.\d+)+\S*")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")
_LETTERS = re.compile(r"[^\W\d_]+")


def looks_like_number(text: str) -> bool:
    """Whether a cell of a CSV file, where everything is text, is only a number."""
    return _NUMBER.fullmatch(text.strip()) is not None


def count_letters(text: str) -> int:
    """Letters of all scripts, those of a long text estimated from its beginning."""
    beginning = text[:_BEGINNING]
    letters = sum(map(str.isalpha, beginning))
    return letters if len(text) <= _BEGINNING else letters * len(text) // _BEGINNING


def count_words(text: str) -> int:
    """Words with letters in the beginning of a text, estimated for scripts that part words with nothing."""
    text = text[:_BEGINNING]
    unspaced = len(_HAN_AND_KANA.findall(text)) // _HAN_PER_WORD
    unspaced += len(_SOUTH_EAST_ASIAN.findall(text)) // _SOUTH_EAST_ASIAN_PER_WORD
    spaced = sum(1 for part in text.split() if _LETTERS.search(part) is not None)
    return max(spaced, unspaced)


def class_of(text: str) -> str:
    """One of "prose", "short" (a few words), "words" (one), "number", "address", "e-mail", "identifier", "date", "file",
    "encoded", "json", "list" (keywords), "symbols"."""
    text = text.strip()
    beginning = text[:_BEGINNING]
    parts = beginning.split()
    if not parts:
        return "symbols"
    if _NUMBER.fullmatch(beginning):
        return "number"
    words = count_words(beginning)
    if len(parts) == 1:
        single = _single_class(text, beginning, words)
        if single is not None:
            return single
    if _DATE.fullmatch(beginning) or _is_date_in_words(beginning):
        return "date"
    if _is_json(text):
        return "json"
    letters = "".join(_LETTERS.findall(beginning))
    if not letters:
        return "symbols"
    if all(_ADDRESS.fullmatch(part) or _EMAIL.fullmatch(part) for part in parts):
        return "address"
    if len(parts) <= 3 and len(beginning) < 200 and _FILE.fullmatch("_".join(parts)) and _ends_like_file(parts[-1]):
        return "file"
    if words >= 3 and _is_keywords(beginning, words):
        return "list"
    capitals = sum(1 for part in parts if (first := _LETTERS.search(part)) is not None and first.group()[0].isupper())
    lower = 1 - capitals / max(words, 1)
    ends = "\n" in text or _SENTENCE_END.search(text) is not None
    if words >= 20 or (words >= 5 and lower >= 0.5) or (words >= 3 and ends and lower >= 0.25):
        return "prose"
    return "short" if words >= 2 else "words" if words == 1 and not _has_code_marks(beginning) else "identifier"


def _single_class(text: str, beginning: str, words: int) -> str | None:
    """The class of a value without white space; None for what may be prose in a script without spaces."""
    if _ADDRESS.fullmatch(beginning):
        return "address"
    if _EMAIL.fullmatch(beginning):
        return "e-mail"
    if _UUID.fullmatch(beginning) or _VERSION.fullmatch(beginning):
        return "identifier"
    if _HEX.fullmatch(beginning):
        return "identifier" if len(text) <= 128 else "encoded"
    if _DATE.fullmatch(beginning):
        return "date"
    if _is_json(text):
        return "json"
    if _ends_like_file(beginning) and _FILE.fullmatch(beginning):
        return "file"
    if words >= 2 or _HAN_AND_KANA.search(beginning) or _SOUTH_EAST_ASIAN.search(beginning):
        return None
    if _BASE64.fullmatch(beginning) and (len(text) > 60 or _is_mixed(beginning)):
        return "encoded"
    if _PATH.fullmatch(beginning) and beginning.count("/") + beginning.count("\\") > 1:
        return "file"
    if _LETTERS.search(beginning) is None:
        return "symbols"
    return "words" if len(beginning) <= 40 and not _has_code_marks(beginning) else "identifier"


def _has_code_marks(text: str) -> bool:
    return any(mark.isdigit() or mark in "_#$=<>{}[]()@:/\\|+*&%" for mark in text) or text.count("-") > 1


def _is_mixed(text: str) -> bool:
    return any(map(str.isdigit, text)) and any(map(str.isupper, text)) and any(map(str.islower, text))


def _ends_like_file(text: str) -> bool:
    _, dot, suffix = text.rpartition(".")
    return bool(dot) and 1 <= len(suffix) <= 6 and suffix.isascii() and suffix.isalnum()


def _is_date_in_words(text: str) -> bool:
    if len(text) > 60 or not any(map(str.isdigit, text)):
        return False
    return all(word.lower() in _TIME_WORDS for word in _LETTERS.findall(text))


def _is_json(text: str) -> bool:
    if not (text[:1] == "{" and text[-1:] == "}") and not (text[:1] == "[" and text[-1:] == "]"):
        return False
    if len(text) > _LONGEST_JSON:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_keywords(text: str, words: int) -> bool:
    """Whether marks part the words of a text so often that they enumerate: "war, love, 19th century, France"."""
    if "\n" in text:
        return False
    marks = len(_LIST_MARKS.findall(text))
    return marks >= 2 and marks >= 0.4 * words
