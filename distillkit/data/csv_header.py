"""Whether the first row of a table names its columns, judged by comparing it with the rows below."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

# What columns of texts and beside them are called, in some languages; one of them makes a row of short words a header.
_USUAL_NAMES = frozenset(
    [
        "text",
        "texts",
        "id",
        "ids",
        "index",
        "idx",
        "body",
        "content",
        "contents",
        "sentence",
        "sentences",
        "sent",
        "document",
        "doc",
        "documents",
        "article",
        "articles",
        "paragraph",
        "title",
        "headline",
        "subject",
        "name",
        "author",
        "label",
        "labels",
        "class",
        "category",
        "tag",
        "tags",
        "score",
        "rating",
        "stars",
        "sentiment",
        "lang",
        "language",
        "date",
        "time",
        "timestamp",
        "year",
        "url",
        "link",
        "source",
        "src",
        "target",
        "tgt",
        "input",
        "output",
        "prompt",
        "completion",
        "response",
        "instruction",
        "context",
        "question",
        "answer",
        "answers",
        "query",
        "passage",
        "summary",
        "abstract",
        "description",
        "comment",
        "comments",
        "review",
        "reviews",
        "message",
        "messages",
        "tweet",
        "post",
        "story",
        "stories",
        "caption",
        "utterance",
        "dialogue",
        "dialog",
        "premise",
        "hypothesis",
        "en",
        "de",
        "fr",
        "es",
        "it",
        "ru",
        "zh",
        "ja",
        "ko",
        "pt",
        "pl",
        "nl",
        "english",
        "german",
        "french",
        "spanish",
        "chinese",
        "quote",
        "lyrics",
        "poem",
        "code",
        "key",
        "value",
        "count",
        "texte",
        "texto",
        "testo",
        "tekst",
        "tekstas",
        "metin",
        "teksti",
        "szöveg",
        "phrase",
        "frase",
        "satz",
        "inhalt",
        "kommentar",
        "titel",
        "beschreibung",
        "commentaire",
        "titre",
        "comentario",
        "título",
        "contenido",
        "descripción",
        "текст",
        "ид",
        "номер",
        "заголовок",
        "название",
        "описание",
        "комментарий",
        "отзыв",
        "дата",
        "предложение",
        "автор",
        "источник",
        "文本",
        "内容",
        "正文",
        "标题",
        "标签",
        "评论",
        "句子",
        "文字",
        "本文",
        "テキスト",
        "タイトル",
        "내용",
        "텍스트",
        "제목",
    ]
)
# Those that make a header also as one word of two or three: "Review Text", "comment_id".
_CORE_NAMES = frozenset(
    [
        "text",
        "id",
        "name",
        "title",
        "date",
        "label",
        "score",
        "rating",
        "review",
        "comment",
        "content",
        "body",
        "message",
        "sentence",
        "description",
    ]
)
_ARTICLES = frozenset(("the", "a", "an", "no", "my", "this"))
_SENTENCE_END = re.compile(r"[.!?…。！？।]['\"”’»)]*$")
_VALUE = re.compile(r"\d{1,4}[-/.:]\d|https?://|\S+@\S+\.\S|[+-]?[\d.,]+%?$")
_IDENTIFIER = re.compile(r"[^\W\d_A-Z][^\WA-Z]*(?:[_.\-:][^\W]+)*$|[a-z]+(?:[A-Z][a-z]+)+$|[A-Z_]+$|#\w+$")
_LONGEST_NAME = 60
_MOST_WORDS = 5
_STRAY = 0.1

Verdict = Literal["present", "absent", "unclear"]


def is_number(cell: str) -> bool:
    """Whether a cell is a number, with a decimal point or comma; linear, unlike a regular expression for it."""
    digits = cell.strip().lstrip("+-")
    return 0 < len(digits) < 40 and digits.replace(".", "").replace(",", "").replace("e-", "").isdigit()


def has_names(row: Sequence[str]) -> bool:
    """Whether all cells of a row may be names of columns: short, distinct, no numbers, no sentences; one may be empty."""
    filled = [cell.strip() for cell in row if cell.strip()]
    return (
        bool(filled)
        and len(filled) >= len(row) - 1
        and len({cell.casefold() for cell in filled}) == len(filled)
        and all(_may_be_name(cell) for cell in filled)
    )


def has_usual_name(row: Sequence[str]) -> bool:
    """Whether a cell is one of the names that columns of texts and beside them usually have."""
    return any(_is_usual(cell) for cell in row)


def judge_header(first: Sequence[str], below: Sequence[Sequence[str]], wanted: str | None) -> Verdict:
    """Whether a table's first row is a header.

    Args:
        first: its cells.
        below: the rows that follow, of the same number of cells.
        wanted: the column asked for; a row that holds it is a header.
    """
    # Columns without a name that hold next to nothing, as spreadsheets write them, say nothing.
    said = [
        place
        for place, cell in enumerate(first)
        if cell.strip() or sum(bool(row[place].strip()) for row in below) > _STRAY * len(below)
    ]
    first, below = [first[place] for place in said], [[row[place] for place in said] for row in below]
    names = [cell.strip() for cell in first]
    if "text" in names or (wanted is not None and wanted in names):
        return "present"
    if not has_names(first):
        return "absent"
    columns = [[row[place].strip() for row in below] for place in range(len(first))]
    if any(name and name in column for name, column in zip(names, columns, strict=True)):
        # A value that comes again, such as a label, is no name.
        return "unclear" if has_usual_name(first) else "absent"
    if has_usual_name(first) or not below:
        return "present"
    if not any(_contrasts(name, column) for name, column in zip(names, columns, strict=True)):
        return "unclear"
    # One or two words over prose may be the first of the texts, such as the title of a chapter.
    several = len(names) > 1 and any(all(is_number(cell) or not cell for cell in column) for column in columns)
    return "present" if several or all(_IDENTIFIER.match(name) for name in names if name) else "unclear"


def _may_be_name(cell: str) -> bool:
    return (
        len(cell) <= _LONGEST_NAME
        and len(cell.split()) <= _MOST_WORDS
        and "\n" not in cell
        and not _SENTENCE_END.search(cell)
        and not _VALUE.match(cell)
        and not is_number(cell)
    )


def _is_usual(cell: str) -> bool:
    name = cell.strip().casefold()
    words = re.split(r"[\W_]+", name)
    return name in _USUAL_NAMES or (
        1 < len(words) <= 3 and words[0] not in _ARTICLES | {""} and not _CORE_NAMES.isdisjoint(words)
    )


def _contrasts(name: str, column: Sequence[str]) -> bool:
    """Whether a name differs in kind from what stands below it: numbers, or longer texts of more words."""
    filled = [cell for cell in column if cell]
    if not filled or not name:
        return False
    if sum(map(is_number, filled)) >= 0.9 * len(filled):
        return True
    longer = sum(len(cell) > len(name) and len(cell.split()) > len(name.split()) for cell in filled)
    return longer >= 0.8 * len(filled)
