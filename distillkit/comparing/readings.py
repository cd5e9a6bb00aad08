"""The same bytes of held-out texts as several models read them, whatever their tokenizers, templates and contexts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distillkit.alignment.encoding import Encoding
from distillkit.data.chat_template import TemplateRefusalError
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.conversation_reader import ConversationReader, ReadConversation, ReadTurn
from distillkit.data.sections import cut_sections
from distillkit.data.text_encoder import TextEncoder
from distillkit.evaluation.bits_per_byte import ScoredText
from distillkit.interrupts import check_interrupted


@dataclass(frozen=True)
class Reader:
    """How a model reads.

    Attributes:
        conversations: where the texts are conversations.
    """

    encoder: TextEncoder
    conversations: ConversationReader | None = None

    def fits(self, ids: Sequence[int]) -> bool:
        """Whether the model has room and rows for these tokens, a start token among them."""
        return self.encoder.can_read(ids) and (self.encoder.context is None or len(ids) <= self.encoder.context)


@dataclass(frozen=True, eq=False)
class Readings:
    """Texts as several models read them.

    Attributes:
        texts: of each model, its contexts; those of one place are of the same text. `document` counts from 0.
        parts: the texts of these contexts, cut so that all models have room for them.
        unread: texts that are left out, because a model cannot read them.
    """

    texts: list[list[ScoredText]]
    parts: list[tuple[int, str]]
    unread: int

    def bytes_of(self, documents: int) -> np.ndarray:
        """[documents] int64: how many bytes are scored of each; the same for all models."""
        sizes = np.zeros(documents, dtype=np.int64)
        for text in self.texts[0]:
            sizes[text.document] += text.bytes
        return sizes


def read_all(parts: Sequence[tuple[int, str]], readers: Sequence[Reader]) -> Readings:
    """Read texts with every model, so that all are scored by the same bytes.

    A text that does not fit into every context is cut. Where a model has no start token, nothing predicts its first token:
    then all are scored from the first byte on at which each of them has a boundary.

    Args:
        parts: (document, text) of each.

    Raises:
        Interrupted: a signal arrived.
    """
    texts: list[list[ScoredText]] = [[] for _ in readers]
    kept: list[tuple[int, str]] = []
    unread = 0
    waiting = list(reversed(parts))
    while waiting:
        check_interrupted()
        document, text = waiting.pop()
        chat = readers[0].conversations is not None
        found = _read_conversation(document, text, readers) if chat else _read_text(document, text, readers)
        if isinstance(found, list):
            for own, one in zip(texts, found, strict=True):
                own.append(one)
            kept += [(document, text)] if found else []
        elif found == "too long" and not chat and len(text) > 1:
            halves = [section.text for section in cut_sections(text, math.ceil(len(text.encode("utf-8")) / 2))]
            waiting += [(document, half) for half in reversed(halves)] if len(halves) > 1 else []
            unread += len(halves) <= 1
        else:
            unread += 1
    return Readings(texts, kept, unread)


# Contexts of one text, one for each model, none where nothing of it is scored; or why there are none.
_Found = list[ScoredText] | str


def _read_text(document: int, text: str, readers: Sequence[Reader]) -> _Found:
    encodings: list[Encoding] = []
    for reader in readers:
        encoding = reader.encoder.encode([text])[0]
        # A tokenizer that would read another text cannot be compared on this one.
        if encoding is None or reader.encoder.reading()([text])[0] != text:
            return "unread"
        encodings.append(encoding)
    ids = [reader.encoder.with_specials(one.ids, False) for reader, one in zip(readers, encodings, strict=True)]
    if not all(reader.fits(own) for reader, own in zip(readers, ids, strict=True)):
        return "too long"
    size = len(text.encode("utf-8"))
    skipped = _first_scored(readers, encodings, size)
    if skipped >= size:
        return []
    found = []
    for own, encoding in zip(ids, encodings, strict=True):
        # A token that spells nothing, such as a space that the tokenizer adds, belongs to what follows it.
        left_out = int(np.searchsorted(encoding.ends, skipped)) + 1 if skipped else 0
        first = max(1, len(own) - len(encoding.ids) + left_out)
        found.append(ScoredText(own, [(first, len(own))], size - skipped, document))
    return found


def _first_scored(readers: Sequence[Reader], encodings: Sequence[Encoding], size: int) -> int:
    """The byte from which on all models are scored: `size` where there is none."""
    unpredicted = [
        int(encoding.ends[0])
        for reader, encoding in zip(readers, encodings, strict=True)
        if reader.encoder.start_id is None and len(encoding.ends)
    ]
    if not unpredicted:
        return 0
    shared = set(encodings[0].ends.tolist()).intersection(*(encoding.ends.tolist() for encoding in encodings[1:]))
    return min((end for end in shared if end >= max(unpredicted)), default=size)


def _read_conversation(document: int, text: str, readers: Sequence[Reader]) -> _Found:
    turns = Conversation.from_canonical(text).turns
    stripped = tuple(Turn(turn.role, turn.text.strip()) for turn in turns)
    found = _read_turns(turns, readers)
    # What one template strips is stripped for all.
    if stripped != turns and not isinstance(found, str) and not all(map(_alike, _answers(found))):
        found = _read_turns(stripped, readers)
    if isinstance(found, str):
        return found
    spans: list[list[tuple[int, int]]] = [[] for _ in readers]
    size = 0
    for answers in filter(_alike, _answers(found)):
        ranges = [read.tokens(answer.content) for read, answer in zip(found, answers, strict=True) if answer.content]
        content = answers[0].content
        if content is None or content[0] == content[1] or min(first for first, _ in ranges) < 1:
            continue
        size += content[1] - content[0]
        for own, span in zip(spans, ranges, strict=True):
            own.append(span)
    if not size:
        return []
    return [ScoredText(read.ids, own, size, document) for read, own in zip(found, spans, strict=True)]


def _read_turns(turns: Sequence[Turn], readers: Sequence[Reader]) -> list[ReadConversation] | str:
    reads: list[ReadConversation] = []
    for reader in readers:
        assert reader.conversations is not None
        try:
            read = reader.conversations.read(turns)
        except TemplateRefusalError:
            read = None
        if read is None:
            return "unread"
        if not reader.fits(read.ids):
            return "too long"
        reads.append(read)
    return reads


def _answers(reads: Sequence[ReadConversation]) -> list[tuple[ReadTurn, ...]]:
    """The turns of the assistant, one after another, each as every model has it."""
    return list(zip(*([turn for turn in read.turns if turn.role == "assistant"] for read in reads), strict=False))


def _alike(answers: Sequence[ReadTurn]) -> bool:
    """Whether every model reads the same bytes as this answer."""
    return all(answer.content is not None and answer.text == answers[0].text for answer in answers)
