"""Texts held in memory as they are compressed: half a gigabyte or less for each gigabyte of prose."""

from __future__ import annotations

import zlib

from distillkit.data.conversation import Conversation
from distillkit.data.document import Document

# The fastest level: ten times as fast as a tokenizer.
_LEVEL = 1


def pack(text: str) -> bytes:
    """A text, compressed."""
    return zlib.compress(text.encode("utf-8", "surrogatepass"), _LEVEL)


def unpack(packed: bytes) -> str:
    """The text that `pack` was given."""
    return zlib.decompress(packed).decode("utf-8", "surrogatepass")


class PackedDocument(Document):
    """A document whose text is compressed; it is whole for as long as somebody looks at it.

    A conversation is held as the canonical text that it has, and made of it again.
    """

    def __init__(
        self, text: str, origin: str, ends_text: bool = True, conversation: Conversation | None = None
    ) -> None:
        # A frozen class is filled past its guard, as its own initialiser does.
        for name, value in (
            ("_packed", pack(text)),
            ("origin", origin),
            ("ends_text", ends_text),
            ("_talks", conversation is not None),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, document: Document) -> PackedDocument:
        """The same document, packed."""
        return cls(document.text, document.origin, document.ends_text, document.conversation)

    @property
    def text(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return unpack(self._packed)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def conversation(self) -> Conversation | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Conversation.from_canonical(self.text) if self._talks else None  # pyright: ignore[reportAttributeAccessIssue]
