"""A data set is of one kind: all its documents are texts, or all are conversations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from distillkit.data.document import Document
from distillkit.data.reading_options import ReadingOptions
from distillkit.errors import UsageError
from distillkit.words import say

_SHOWN_CHARACTERS, _SHOWN_TURNS = 100, 3


class OneKind:
    """Passes documents on as long as they are of the kind of the first one.

    Args:
        options: `data_format` and `system_prompt`, which say what the documents must be.
    """

    def __init__(self, options: ReadingOptions) -> None:
        self.options = options
        self.first: Document | None = None

    def checked(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents.

        Raises:
            UsageError: one of them is of another kind than the first one, or than the options say.
        """
        for document in documents:
            if self.first is None:
                self._check_options(document)
                self.first = document
            elif (document.conversation is None) != (self.first.conversation is None):
                texts, conversations = sorted((self.first, document), key=lambda item: item.conversation is not None)
                raise UsageError(
                    f"texts and conversations in one data set: {texts.origin} is a text, {conversations.origin} a conversation",
                    hint="give files of one kind; --data-format text --text-column NAME reads one column of each as text",
                )
            yield document

    def _check_options(self, document: Document) -> None:
        if document.conversation is not None:
            return
        if self.options.data_format not in ("auto", "text"):
            raise UsageError(
                f"{document.origin} is a text, and no conversation as --data-format {self.options.data_format} says",
                hint="leave --data-format out, or write the conversations into .jsonl, .json, .csv, .parquet or .arrow",
            )
        if (self.options.system_prompt or "").strip():
            raise UsageError(
                f"--system-prompt is for conversations, and {document.origin} is a text",
                hint="leave --system-prompt out",
            )

    def shown_row(self) -> list[list[str]]:
        """The beginning of each turn of the first conversation, with who speaks; empty for texts."""
        if self.first is None or self.first.conversation is None:
            return []
        return [[turn.role, _beginning(turn.text)] for turn in self.first.conversation.turns]


def told_row(turns: Iterable[Sequence[str]], lang: str = "en") -> str:
    """`shown_row` for people: "user “Who …?”, assistant “It was …”, and 3 turns more"."""
    told = [f"{role} “{text}”" for role, text in turns]
    more = len(told) - _SHOWN_TURNS
    return ", ".join([*told[:_SHOWN_TURNS], *([say(lang, "input.more_turns", count=more)] if more > 0 else [])])


def _beginning(text: str) -> str:
    shown = text[:_SHOWN_CHARACTERS].replace("\n", "⏎").replace("\t", "⇥")
    return f"{shown}…" if len(text) > _SHOWN_CHARACTERS else shown
