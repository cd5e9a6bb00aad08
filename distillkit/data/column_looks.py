"""What the values of a column look like: prose, short texts, labels, identifiers, addresses, numbers, chat turns …

Judged from many values, so that one odd row decides nothing.
"""

from __future__ import annotations

import datetime
import itertools
import json
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distillkit.data.text_classes import class_of, count_letters, count_words, looks_like_number

# A column shows what it is in a part of its values.
_LOOKED_AT = 100
_NESTED_LOOKED_AT = 50
_INNER_LOOKED_AT = 200
# From so many values on, values that repeat say something.
_ENOUGH_TO_COUNT = 20
_FEW_DIFFERENT = 0.1
_FEW_SENTENCES = 0.02
_VERY_FEW = 10
_MOSTLY = 0.6

_TURN_ROLES = ("role", "from", "speaker", "sender")
_TURN_CONTENTS = ("content", "value", "text", "message", "utterance", "parts")
_TURN_COLUMNS = frozenset((
    "messages", "message_list", "conversations", "conversation", "dialogue", "dialogues", "dialog", "dialogs", "chat",
    "chats", "turns", "utterances", "chosen", "rejected",
))  # fmt: skip

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
        is_repeated_prose: sentences, but the same few again and again: an enumeration, unless the name says otherwise.
    """

    kind: Kind
    label: str
    is_text: bool = False
    letters: float = 0.0
    words: float = 0.0
    inner_letters: float = 0.0
    is_repeated_prose: bool = False


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
        return _look_at_texts(name, texts)
    kinds = Counter(_kind_of_value(value) for value in present if not isinstance(value, str))
    label = kinds.most_common(1)[0][0]
    if label not in ("lists", "objects"):
        return Look("other", label)
    some = [value for value in present if isinstance(value, (list, tuple, dict))][:_NESTED_LOOKED_AT]
    if _are_conversations(name, some):
        return Look("chat", "chat turns")
    lengths = [
        sum(count_letters(text) for text in _first_texts(value) if class_of(text) in ("prose", "short"))
        for value in some
    ]
    inner_letters = sum(lengths) / len(lengths)
    return Look("other", f"{label} with texts in them" if inner_letters else label, inner_letters=inner_letters)


def is_text(values: Sequence[Any]) -> bool:
    """`Look.is_text` of values, without the rest: most are strings, and not all of these are numbers."""
    present = [value for value in values if value is not None and value != ""]
    texts = [value for value in present if isinstance(value, str)]
    return bool(texts) and 2 * len(texts) >= len(present) and not all(map(looks_like_number, texts))


def is_turn(value: Any) -> bool:
    """Whether a value is one turn of a conversation: {"role": …, "content": …} and its relatives."""
    if not isinstance(value, Mapping):
        return False
    keys = {str(key).lower() for key in value}
    return any(key in keys for key in _TURN_ROLES) and any(key in keys for key in _TURN_CONTENTS)


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


def _look_at_texts(name: str, texts: Sequence[str]) -> Look:
    filled = [text for text in texts if not text.isspace()]
    if not filled:
        return Look("nothing", "blanks", is_text=True)
    step = -(-len(filled) // _LOOKED_AT)
    some = filled[::step]
    classes = Counter(map(class_of, some))
    letters = statistics.median(map(count_letters, some))
    words = statistics.median(count_words(text) for text in some)
    numbers = classes["number"] == len(some)
    is_prose = classes["prose"] >= _MOSTLY * len(some)
    if not numbers and _are_few(len(set(filled)), len(filled), is_prose=is_prose):
        return Look("other", FEW_VALUES, True, letters, words, is_repeated_prose=is_prose)
    if is_prose:
        return Look("prose", "prose", True, letters, words)
    # Texts of any length count as short ones where too few of them are prose.
    if 2 * (classes["prose"] + classes["short"]) >= len(some):
        return Look("short", "short texts", True, letters, words)
    if 2 * (classes["prose"] + classes["short"] + classes["words"]) >= len(some):
        return Look("words", "single words", True, letters, words)
    for spoken in ("prose", "short", "words"):
        del classes[spoken]
    if 2 * classes["json"] >= len(some):
        read = [json.loads(text) for text in some if class_of(text) == "json"]
        if _are_conversations(name, read[:_NESTED_LOOKED_AT]):
            return Look("chat", "chat turns written as JSON", True, letters, words)
    kind, label = _LABELS[classes.most_common(1)[0][0]]
    return Look(kind, label, not numbers, letters, words)


def _are_few(different: int, total: int, *, is_prose: bool) -> bool:
    """Whether values are an enumeration. Sentences may be repeated more often than short texts before they are one."""
    if total < _ENOUGH_TO_COUNT:
        return False
    if not is_prose:
        return different <= _FEW_DIFFERENT * total
    return different <= _FEW_SENTENCES * total or different <= min(_VERY_FEW, total // 5)
