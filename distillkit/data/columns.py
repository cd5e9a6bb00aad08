"""Which column of a table holds the text: the one that is named, the one called `text`, or the one that is prose.

Any other column would be learnt just as willingly: identifiers, addresses, titles. So what is not clear is refused, with
what each column looks like.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from distillkit.data.column_looks import Look, is_text, look_at
from distillkit.data.text_classes import looks_like_number
from distillkit.errors import UsageError

__all__ = [
    "SAMPLE_ROWS", "ColumnChoice", "choose_column", "is_beside", "is_prose", "is_usual_name", "kind_of", "listed_columns",
    "looks_like_number", "quoted_column",
]  # fmt: skip

SAMPLE_ROWS = 1000
"""How many rows of a table are looked at before its column is chosen."""

_MOST_LISTED = 20
_FLAG_HINT = "name the column with --text-column"
_TEXT = "text"
# As columns of texts are often called. A name alone decides nothing; it helps where the values do not.
_USUAL_NAMES = frozenset((
    "text", "texts", "content", "contents", "body", "document", "documents", "doc", "article", "articles", "passage",
    "passages", "paragraph", "paragraphs", "sentence", "sentences", "review", "reviews", "story", "stories", "poem",
    "poems", "lyrics", "caption", "captions", "code", "transcript", "transcription", "post", "tweet", "comment",
    "essay", "abstract", "page", "markdown", "raw_text", "raw_content", "full_text", "clean_text", "article_text",
    "review_text", "texte", "texto", "testo", "tekst", "текст", "содержание", "正文", "内容", "本文", "文章",
))  # fmt: skip
# What stands beside a text and says something about it; it may be a sentence itself.
_NAMES_BESIDE = frozenset((
    "id", "ids", "key", "keys", "guid", "uuid", "title", "titles", "name", "names", "subject", "headline",
    "headlines", "heading", "header", "author", "authors", "creator", "by", "source", "sources", "url", "urls", "uri",
    "link", "links", "domain", "site", "website", "host", "publisher", "path", "file", "filename", "file_name",
    "date", "time", "timestamp", "created", "updated", "label", "labels", "class", "category", "categories", "tag",
    "tags", "keyword", "keywords", "genre", "genres", "topic", "topics", "theme", "lang", "language", "license",
    "licence", "split", "meta", "metadata", "address", "city", "country", "user", "username", "email", "version",
    "type", "status", "annotator", "worker", "comment_id", "reason", "error", "note", "notes", "system",
    "system_prompt",
))  # fmt: skip
_LAST_WORD = re.compile(r"(?:(?<=[_ -])[^_ -]{1,40}|(?<=[a-z])[A-Z][a-z]{1,40})$")
_SPOKEN = ("prose", "short", "words")
# A column of lists or objects that holds so many times the text of the column that would be taken is the text.
_MUCH_MORE = 2.0
# A column that is called as a title is one, unless its values are long.
_WORDS_OF_A_TEXT = 30


class ColumnChoice(NamedTuple):
    """The column that holds the text.

    Attributes:
        name: its name.
        why: "named by --text-column", "called text", "the only one that is prose".
    """

    name: str
    why: str


def kind_of(value: Any) -> str:
    """What a JSON value is, for messages: "null", "the number 3", "a list"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return f"the number {value}" if len(str(value)) < 30 else "a number"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"


def choose_column(columns: Mapping[str, Sequence[Any] | Look], wanted: str | None, where: str) -> ColumnChoice:
    """The column to read: `wanted`, else the one called `text`, else the one that is prose.

    Args:
        columns: the name of each column, and its values in the first `SAMPLE_ROWS` rows (None where a row has none), or what
            it looks like where that is known without them.
        wanted: the column asked for, None to find it.
        where: the file or data set, for the message.

    Raises:
        UsageError: there is no such column, it holds no text, or it is not clear which one is meant.
    """
    if wanted is not None:
        return _wanted_column(columns, wanted, where)
    called = [name for name in columns if name == _TEXT] or [name for name in columns if name.strip().lower() == _TEXT]
    if len(called) == 1 and _is_text(columns[called[0]]):
        return ColumnChoice(called[0], "called text")
    looks = {name: values if isinstance(values, Look) else look_at(name, values) for name, values in columns.items()}
    prose = [name for name, look in looks.items() if is_prose(name, look)]
    if not prose:
        alone = len(looks) == 1
        prose = [name for name, look in looks.items() if look.is_repeated_prose and (alone or is_usual_name(name))]
    spoken = prose or [name for name, look in looks.items() if look.kind in _SPOKEN]
    usual = [name for name in spoken if is_usual_name(name)]
    choice = None
    if len(prose) == 1:
        choice = ColumnChoice(prose[0], "the only column" if len(looks) == 1 else "the only one that is prose")
    elif len(usual) == 1 and (prose or len(spoken) == 1):
        why = "prose, and called as texts are" if prose else "called as texts are"
        choice = ColumnChoice(usual[0], why)
    elif not prose and len(looks) == 1 and _is_readable_alone(*next(iter(looks.items()))):
        choice = ColumnChoice(next(iter(looks)), "the only column")
    elif not prose and len(called) == 1 and (looks[called[0]].kind == "nothing" or _holds_strings(columns[called[0]])):
        # Numbers as strings, or nothing yet: bad rows of the column that is meant, rather than no column.
        choice = ColumnChoice(called[0], "called text")
    if choice is not None and not _is_outweighed(choice.name, looks):
        return choice
    raise UsageError(
        f"{where}: {_what_is_unclear(looks, prose)}; columns: {listed_columns(looks)}", hint=_hint(looks, prose)
    )


def _wanted_column(columns: Mapping[str, Sequence[Any] | Look], wanted: str, where: str) -> ColumnChoice:
    names = list(columns)
    if wanted not in columns:
        close = difflib.get_close_matches(wanted, names, n=1)
        listed = ", ".join(names[:_MOST_LISTED]) + (", …" if len(names) > _MOST_LISTED else "") or "none"
        hint = f"did you mean --text-column {quoted_column(close[0])}?" if close else _FLAG_HINT
        raise UsageError(f"{where}: no column '{wanted}'; columns: {listed}", hint=hint)
    values = columns[wanted]
    look = values if isinstance(values, Look) else look_at(wanted, values)
    # A column of which nothing has been seen may hold texts further down.
    if look.kind != "nothing" and not look.is_text and not _holds_strings(values):
        looks = {name: value if isinstance(value, Look) else look_at(name, value) for name, value in columns.items()}
        raise UsageError(
            f"{where}: column '{wanted}' does not hold text but {look.label}; columns: {listed_columns(looks)}",
            hint=_hint(looks, [name for name, look in looks.items() if is_prose(name, look)]),
        )
    return ColumnChoice(wanted, "named by --text-column")


def _is_text(values: Sequence[Any] | Look) -> bool:
    return values.is_text if isinstance(values, Look) else is_text(values)


def _holds_strings(values: Sequence[Any] | Look) -> bool:
    return values.is_text if isinstance(values, Look) else any(isinstance(value, str) for value in values)


def is_usual_name(name: str) -> bool:
    """Whether a name, or its last word (`review_body`, `reviewText`), is one that texts have."""
    last = _LAST_WORD.search(name.strip())
    return name.strip().lower() in _USUAL_NAMES or (last is not None and last.group().lower() in _USUAL_NAMES)


def is_prose(name: str, look: Look) -> bool:
    """Whether a column is the text by what it holds and how it is called."""
    return look.kind == "prose" and (not is_beside(name) or look.words >= _WORDS_OF_A_TEXT)


def is_beside(name: str) -> bool:
    """Whether a name says that the column is no text but something about one."""
    beside = name.strip().lower().replace("-", "_").replace(" ", "_")
    return beside in _NAMES_BESIDE or beside.endswith(("_id", "_title", "_name", "_url", "_date", "_label", "_type"))


def _is_readable_alone(name: str, look: Look) -> bool:
    """Whether the only column of a table is taken although it is no prose: a list of titles, of names, of words."""
    return look.kind in ("short", "nothing") or (look.kind == "words" and not is_beside(name))


def _is_outweighed(name: str, looks: Mapping[str, Look]) -> bool:
    """Whether what lies in lists, objects or bytes is more likely the text."""
    for other, look in looks.items():
        if look.inner_letters > _MUCH_MORE * looks[name].letters:
            return True
        hidden = look.label.startswith(("bytes", "lists", "objects"))
        if hidden and other.strip().lower() == _TEXT:
            return True
        if look.label == "bytes" and is_usual_name(other) and not is_usual_name(name):
            return True
    return False


def _what_is_unclear(looks: Mapping[str, Look], prose: Sequence[str]) -> str:
    spoken = [name for name, look in looks.items() if look.kind in _SPOKEN]
    if prose or len(spoken) > 1:
        return "it is not clear which column holds the text"
    return "no column holds text" if not any(look.is_text for look in looks.values()) else "no column is prose"


def listed_columns(looks: Mapping[str, Look]) -> str:
    """What each column looks like, for messages."""
    some = [
        f"{name}: {'short texts' if look.kind == 'prose' and not is_prose(name, look) else look.label}"
        for name, look in list(looks.items())[:_MOST_LISTED]
    ]
    return "; ".join(some) + ("; …" if len(looks) > _MOST_LISTED else "") or "none"


def _hint(looks: Mapping[str, Look], prose: Sequence[str]) -> str:
    candidates = prose or [name for name, look in looks.items() if look.kind in _SPOKEN]
    candidates = [name for name in candidates if not _is_outweighed(name, looks)]
    if not prose:
        # Titles beside lists that were written as text are not what is looked for.
        written = [name for name, look in looks.items() if look.label == "JSON written as text"]
        long = max(written, key=lambda name: looks[name].letters, default=None)
        if long is not None and all(looks[long].letters > _MUCH_MORE * looks[name].letters for name in candidates):
            return f"if the text is in {quoted_column(long)}, write it into a column of plain text; else {_FLAG_HINT}"
    if not candidates:
        heavy = [name for name, look in looks.items() if look.inner_letters or look.label.startswith("bytes")]
        if not heavy:
            return _FLAG_HINT
        inside = max(heavy, key=lambda name: (looks[name].inner_letters, name.strip().lower() == _TEXT))
        return f"if the text is in {quoted_column(inside)}, write it into a column of strings; else {_FLAG_HINT}"
    best = max(candidates, key=lambda name: (is_usual_name(name), looks[name].letters))
    return f"{_FLAG_HINT}; --text-column {quoted_column(best)} looks most like it"


def quoted_column(name: str) -> str:
    """A name as a command takes it."""
    return shlex.quote(name) if name.isascii() or not name.replace("-", "").replace("_", "").isalnum() else name
