"""What passes between the readers and the splitting of texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from distillkit.data.conversation import Conversation


@dataclass(frozen=True)
class Document:
    """A text that is never shared between splits.

    Attributes:
        text: clean, not empty, LF line ends.
        origin: where it is from: "grimm.txt:120", "Salesforce/wikitext[train]:57", "python-docs:topics/assert".
        ends_text: True where the text ends with this document; False where a longer text was cut.
        conversation: the turns, where the document is a conversation; `text` is then its canonical form.
    """

    text: str
    origin: str
    ends_text: bool = True
    conversation: Conversation | None = None


@dataclass
class DocumentSet:
    """The texts of one source.

    Attributes:
        description: the source, for people.
        splits: {"all": …} where the source has no official split, otherwise some of "train", "validation", "test".
        fingerprint: what the texts depend on: the keys of `source_fingerprint`, and those that are known only after
            reading ("commit", "text sha256").
        notes: what the user should know.
        reading: what was noted while reading, `ReadingNotes.record`.
    """

    description: str
    splits: dict[str, list[Document]]
    fingerprint: dict[str, str]
    notes: list[str] = field(default_factory=list)
    reading: dict[str, Any] = field(default_factory=dict)
