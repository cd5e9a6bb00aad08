"""What the values of a column look like: prose, short texts, labels, identifiers, addresses, numbers, chat turns …

Judged from many values, so that one odd row decides nothing. Every pattern is linear in the length of a value, and only
the beginning of a long value is looked at.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

# A text shows what it is in its beginning, and a column in a part of its values.
_BEGINNING = 500
_LOOKED_AT = 200
_NESTED_LOOKED_AT = 50
_INNER_LOOKED_AT = 200
# From so many values on, values that repeat say something.
_ENOUGH_TO_COUNT = 20
_FEW_DIFFERENT = 0.1
_MOSTLY = 0.6

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
_TIME_WORDS = frozenset(
    [
        "jan",
        "january",
        "feb",
        "february",
        "mar",
        "march",
        "apr",
        "april",
        "may",
        "jun",
        "june",
        "jul",
        "july",
        "aug",
        "august",
        "sep",
        "sept",
        "september",
        "oct",
        "october",
        "nov",
        "november",
        "dec",
        "december",
        "mon",
        "monday",
        "tue",
        "tues",
        "tuesday",
        "wed",
        "wednesday",
        "thu",
        "thur",
        "thurs",
        "thursday",
        "fri",
        "friday",
        "sat",
        "saturday",
        "sun",
        "sunday",
        "am",
        "pm",
        "gmt",
        "utc",
        "at",
        "of",
        "on",
        "st",
        "nd",
        "rd",
        "th",
        "t",
        "z",
        "est",
        "edt",
        "cst",
        "cdt",
        "mst",
        "mdt",
        "pst",
        "pdt",
        "cet",
        "cest",
        "bc",
        "ad",
        "bce",
        "ce",
    ]
)
_FILE = re.compile(r"(?:[A-Za-z]:)?[^\s/\\]*(?:[/\\][^\s/\\]*)*\.[A-Za-z0-9]{1,6}")
_PATH = re.compile(r"(?:[A-Za-z]:[/\\]|[~.]{0,2}/)?[^\s/\\]+(?:[/\\][^\s/\\]*)+")
_VERSION = re.compile(r"[vV]?\d+(?:\.\d+)+\S*")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")
_LETTERS = re.compile(r"[^\W\d_]+")

_TURN_ROLES = ("role", "from", "speaker", "sender")
_TURN_CONTENTS = ("content", "value", "text", "message", "utterance", "parts")
_TURN_COLUMNS = frozenset(
    [
        "messages",
        "message_list",
        "conversations",
        "conversation",
        "dialogue",
        "dialogues",
        "dialog",
        "dialogs",
        "chat",
        "chats",
        "turns",
        "utterances",
        "chosen",
        "rejected",
    ]
)

FEW_VALUES = "the same few values again and again"

Kind = Literal["prose", "short", "words", "other", "chat", "nothing"]


@dataclass(frozen=True)
class Look:
    """What a column looks like.

    Attributes:
        kind: "prose": sentences; "short": a few words each, such as titles and names; "words": single words; "chat": turns of
            conversations; "nothing": no value; "other": no text, or text that says nothing (identifiers, dates, labels).
        label: for people: "identifiers", "lists", "short texts".
        is_text: its values are strings, or most of them are, and not all of these are numbers.
        letters: letters of a value of usual length (the median).
        words: words of a value of usual length, as far as was looked.
        inner_letters: letters of the prose inside lists and objects, on average; 0 for other columns.
    """

    kind: Kind
    label: str
    is_text: bool = False
    letters: float = 0.0
    words: float = 0.0
    inner_letters: float = 0.0


def looks_like_number(text: str) -> bool:
    """Whether a cell of a CSV file, where everything is text, is only a number."""
    return _NUMBER.fullmatch(text.strip()) is not None


def look_at(name: str, values: Sequence[Any]) -> Look:
    """What a column looks like.

    Args:
        name: the column's name, which tells chat turns where they are plain strings in lists.
        values: those of some rows, None where there is none.
    """
    present = [value for value in values if value is not None and value != ""]
    if not present:
        return Look("nothing", "nothing")
    texts = [value for value in present if isinstance(value, str)]
    if 2 * len(texts) >= len(present):
        return _look_at_texts(texts)
    kinds = Counter(_kind_of_value(value) for value in present if not isinstance(value, str))
    label = kinds.most_common(1)[0][0]
    if label not in ("lists", "objects"):
        return Look("other", label)
    some = [value for value in present if isinstance(value, (list, tuple, dict))][:_NESTED_LOOKED_AT]
    if _are_conversations(name, some):
        return Look("chat", "chat turns")
    lengths = [
        sum(_count_letters(text) for text in _first_texts(value) if _class_of(text) in ("prose", "short"))
        for value in some
    ]
    inner_letters = sum(lengths) / len(lengths)
    return Look("other", f"{label} with texts in them" if inner_letters else label, inner_letters=inner_letters)


def is_turn(value: Any) -> bool:
    """Whether a value is one turn of a conversation: {"role": …, "content": …} and its relatives."""
    if not isinstance(value, Mapping):
        return False
    return any(key in value for key in _TURN_ROLES) and any(key in value for key in _TURN_CONTENTS)


def are_turn_fields(names: Sequence[str]) -> bool:
    """The same, from the names of a struct's fields."""
    return is_turn(dict.fromkeys(names))


def is_turn_column(name: str) -> bool:
    """Whether a column of lists is called as conversations are."""
    return name.lower() in _TURN_COLUMNS


def _are_conversations(name: str, values: Sequence[Any]) -> bool:
    inner: list[Any] = []
    for value in values:
        if isinstance(value, Mapping):
            # One turn; or turns as `datasets` stores a list of objects: an object of lists.
            inner.append(value)
        else:
            inner.extend(value[:4])
    if not inner:
        return False
    turns = sum(map(is_turn, inner))
    strings = sum(isinstance(item, str) for item in inner)
    return 2 * turns >= len(inner) or (is_turn_column(name) and 2 * (strings + turns) >= len(inner))


def _first_texts(value: Any) -> Iterator[str]:
    return itertools.islice(_inner_texts(value), _INNER_LOOKED_AT)


def _inner_texts(value: Any, depth: int = 6) -> Iterator[str]:
    """The strings in lists and objects."""
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, (list, tuple)):
        for item in value[:_INNER_LOOKED_AT]:
            yield from _inner_texts(item, depth - 1)
    elif depth and isinstance(value, Mapping):
        for item in value.values():
            yield from _inner_texts(item, depth - 1)


def _kind_of_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (list, tuple)):
        return "lists"
    if isinstance(value, Mapping):
        return "objects"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes"
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta)):
        return "dates or times"
    return "numbers"


_LABELS: Mapping[str, tuple[Kind, str]] = {
    "prose": ("prose", "prose"),
    "short": ("short", "short texts"),
    "words": ("words", "single words"),
    "number": ("other", "numbers"),
    "address": ("other", "addresses (URLs)"),
    "e-mail": ("other", "e-mail addresses"),
    "identifier": ("other", "identifiers"),
    "date": ("other", "dates or times"),
    "file": ("other", "names of files"),
    "encoded": ("other", "encoded data"),
    "json": ("other", "JSON written as text"),
    "list": ("other", "lists of keywords"),
    "symbols": ("other", "figures and signs"),
}


def _look_at_texts(texts: Sequence[str]) -> Look:
    filled = [text for text in texts if not text.isspace()]
    if not filled:
        return Look("nothing", "blanks", is_text=True)
    step = -(-len(filled) // _LOOKED_AT)
    some = filled[::step]
    classes = Counter(map(_class_of, some))
    letters = statistics.median(map(_count_letters, some))
    words = statistics.median(_count_words(text[:_BEGINNING]) for text in some)
    numbers = classes["number"] == len(some)
    if len(filled) >= _ENOUGH_TO_COUNT and len(set(filled)) <= _FEW_DIFFERENT * len(filled) and not numbers:
        return Look("other", FEW_VALUES, True, letters, words)
    if classes["prose"] >= _MOSTLY * len(some):
        return Look("prose", "prose", True, letters, words)
    # Texts of any length count as short ones where too few of them are prose.
    if 2 * (classes["prose"] + classes["short"]) >= len(some):
        return Look("short", "short texts", True, letters, words)
    if 2 * (classes["prose"] + classes["short"] + classes["words"]) >= len(some):
        return Look("words", "single words", True, letters, words)
    for spoken in ("prose", "short", "words"):
        del classes[spoken]
    kind, label = _LABELS[classes.most_common(1)[0][0]]
    return Look(kind, label, not numbers, letters, words)


def _count_letters(text: str) -> int:
    """Letters of all scripts, those of a long text estimated from its beginning."""
    beginning = text[:_BEGINNING]
    letters = sum(map(str.isalpha, beginning))
    return letters if len(text) <= _BEGINNING else letters * len(text) // _BEGINNING


def _count_words(text: str) -> int:
    unspaced = len(_HAN_AND_KANA.findall(text)) // _HAN_PER_WORD
    unspaced += len(_SOUTH_EAST_ASIAN.findall(text)) // _SOUTH_EAST_ASIAN_PER_WORD
    spaced = sum(1 for part in text.split() if _LETTERS.search(part) is not None)
    return max(spaced, unspaced)


def _class_of(text: str) -> str:
    """The class of one value, a key of `_LABELS`."""
    text = text.strip()
    beginning = text[:_BEGINNING]
    parts = beginning.split()
    if not parts:
        return "symbols"
    if _NUMBER.fullmatch(beginning):
        return "number"
    words = _count_words(beginning)
    if len(parts) == 1:
        single = _class_of_single(text, beginning, words)
        if single is not None:
            return single
    if _DATE.fullmatch(beginning) or _is_date_in_words(beginning):
        return "date"
    if _is_json(text):
        return "json"
    letters = "".join(_LETTERS.findall(beginning))
    if not letters:
        return "symbols"
    if len(parts) <= 3 and len(beginning) < 200 and _FILE.fullmatch("_".join(parts)) and _ends_like_file(parts[-1]):
        return "file"
    if all(_ADDRESS.fullmatch(part) or _EMAIL.fullmatch(part) for part in parts):
        return "address"
    if words >= 3 and _is_keywords(beginning, words):
        return "list"
    capitals = sum(1 for part in parts if (first := _LETTERS.search(part)) is not None and first.group()[0].isupper())
    lower = 1 - capitals / max(words, 1)
    ends = "\n" in text or _SENTENCE_END.search(text) is not None
    if words >= 20 or (words >= 5 and lower >= 0.5) or (words >= 3 and ends and lower >= 0.25):
        return "prose"
    return "short" if words >= 2 else "words" if words == 1 and not _has_code_marks(beginning) else "identifier"


def _class_of_single(text: str, beginning: str, words: int) -> str | None:
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
    if len(text) > 100_000:
        return text[1:200].lstrip()[:1] in ('"', "{", "[")
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
