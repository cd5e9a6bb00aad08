"""A conversation as one model reads it: rendered by its template, as tokens, with the places of its turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distillkit.alignment.encoding import Encoding
from distillkit.alignment.turns import TurnPart, tokens_of, turn_part
from distillkit.data.chat_template import ChatTemplate, TemplateRefusalError, names_pattern
from distillkit.data.conversation import Role, Turn
from distillkit.data.rendering import Rendered, RenderedTurn, Span, rendered
from distillkit.data.special_tokens import special_names
from distillkit.data.text_encoder import TextEncoder


@dataclass(frozen=True)
class ReadTurn:
    """One turn in the tokens of a conversation.

    Attributes:
        role: who speaks.
        text: the content as it stands there.
        content: the bytes of the content in the rendered text; None where it does not stand there as it was said.
        target: the tokens that an assistant writes, its end-of-turn token included; None for the other roles.
        end_token: the place of that token; None where there is none.
    """

    role: Role
    text: str
    content: Span | None
    target: Span | None
    end_token: int | None


@dataclass(frozen=True, eq=False)
class ReadConversation:
    """A conversation as one model reads it.

    Attributes:
        data: the rendered text in UTF-8.
        encoding: its tokens, as `tokenizer.apply_chat_template` gives them.
        turns: in order.
    """

    data: bytes
    encoding: Encoding
    turns: tuple[ReadTurn, ...]

    @property
    def ids(self) -> list[int]:
        return self.encoding.ids

    def tokens(self, span: Span) -> Span:
        """The range of the tokens that have any of these bytes."""
        return tokens_of(self.encoding.ends, *span)

    def without_end(self) -> ReadConversation:
        """Up to the content of the last turn, which has no end: its text goes on."""
        last = self.turns[-1]
        if last.content is None or last.target is None:
            return self
        _, count = self.tokens(last.content)
        turn = replace(last, target=(last.target[0], count), end_token=None)
        unlike = self.encoding.unlike
        encoding = replace(
            self.encoding,
            ids=self.encoding.ids[:count],
            ends=self.encoding.ends[:count],
            unlike=None if unlike is None else unlike[:count],
            names={place: name for place, name in self.encoding.names.items() if place < count},
        )
        return ReadConversation(self.data, encoding, (*self.turns[:-1], turn))


class ConversationReader:
    """Reads conversations for one model.

    Args:
        encoder: how the model reads texts.
        template: how it reads conversations.
    """

    def __init__(self, encoder: TextEncoder, template: ChatTemplate) -> None:
        self.encoder = encoder
        self.template = template
        self._parsing = replace(encoder, parse=True)
        self._plain = replace(encoder, parse=False)
        self._names = names_pattern({name: index for name, index in special_names(encoder).items() if name.strip()})

    def read(self, turns: Sequence[Turn]) -> ReadConversation | None:
        """A conversation as tokens; None where the tokenizer cannot read it.

        Special tokens that the template writes are tokens; their names inside contents are ordinary text.

        Raises:
            TemplateRefusalError: the template cannot render it, or it cannot be told where its answers stand.
        """
        found = rendered(self.template, turns)
        encoding = self._encode(found)
        if encoding is None:
            return None
        at = _byte_places(found.text)
        return ReadConversation(
            found.text.encode(), encoding, tuple(self._turn(t, found, encoding, at) for t in found.turns)
        )

    def prompt_ids(self, turns: Sequence[Turn]) -> list[int] | None:
        """What the model reads before it answers: the turns, and the template's generation prompt; None where its tokenizer
        cannot read it.

        Raises:
            TemplateRefusalError: the template cannot render these turns.
        """
        given = self.template.read(turns)
        text = self.template.render(given, prompt=True)
        if not self._naming(given):
            encoding = self._parsing.encode([text])[0]
            return None if encoding is None else encoding.ids
        # Where the contents stand in a prompt is known of the conversation that has an answer.
        whole = rendered(self.template, [*turns, Turn("assistant", ".")])
        before = [turn for turn in whole.turns[:-1] if turn.content is not None]
        if not all(whole.text[slice(*turn.content)] == text[slice(*turn.content)] for turn in before if turn.content):
            raise TemplateRefusalError("it cannot be told where the turns stand, and they name special tokens")
        encoding = self._encode(Rendered(text, (*before,)))
        return None if encoding is None else encoding.ids

    def part(self, read: ReadConversation, turn: ReadTurn, span: Span) -> TurnPart:
        """A part of a turn's content, for aligning it.

        Args:
            span: bytes of the rendered text, inside the content.

        Raises:
            ValueError: the bytes of the tokens are not known.
        """
        if self.encoder.table is None:
            raise ValueError("alignment needs token bytes")
        return turn_part(read.encoding, read.data, *span, table=self.encoder.table, end_token=turn.end_token)

    # --- tokens ---

    def _naming(self, turns: Sequence[Turn]) -> bool:
        return self._names is not None and any(self._names.search(turn.text) for turn in turns)

    def _encode(self, found: Rendered) -> Encoding | None:
        if not self._naming([turn.turn for turn in found.turns]):
            return self._parsing.encode([found.text])[0]
        segments: list[tuple[str, TextEncoder]] = []
        at = 0
        for begin, end in sorted(span for turn in found.turns if (span := self._names_inside(turn)) is not None):
            segments += [(found.text[at:begin], self._parsing), (found.text[begin:end], self._plain)]
            at = end
        segments.append((found.text[at:], self._parsing))
        return _joined([(text, encoder.encode([text])[0]) for text, encoder in segments if text])

    def _names_inside(self, turn: RenderedTurn) -> Span | None:
        """The content of a turn that names a special token.

        Raises:
            TemplateRefusalError: it is not known where that stands.
        """
        if self._names is None or not self._names.search(turn.turn.text):
            return None
        if turn.content is None:
            raise TemplateRefusalError("it cannot be told where a turn stands that names a special token")
        return turn.content

    def _turn(self, turn: RenderedTurn, found: Rendered, encoding: Encoding, at: np.ndarray) -> ReadTurn:
        text = "" if turn.content is None else found.text[slice(*turn.content)]
        content = None if turn.content is None else (int(at[turn.content[0]]), int(at[turn.content[1]]))
        target, end_token = None, None
        if turn.target is not None:
            first, last = tokens_of(encoding.ends, int(at[turn.target[0]]), int(at[turn.target[1]]))
            if turn.end is not None:
                place = int(np.searchsorted(encoding.ends, int(at[turn.end[0]]), side="right"))
                if encoding.ids[place] == self.template.end_id:
                    end_token, last = place, place + 1
            target = (first, last)
        return ReadTurn(turn.turn.role, text, content, target, end_token)


def _joined(segments: Sequence[tuple[str, Encoding | None]]) -> Encoding | None:
    """Encodings of consecutive texts as one; None where one of them is None."""
    ids: list[int] = []
    ends: list[np.ndarray] = []
    unlike: list[np.ndarray] = []
    names: dict[int, str] = {}
    size, dummy_space = 0, False
    for text, encoding in segments:
        if encoding is None:
            return None
        marks = np.zeros(len(encoding.ids), dtype=bool) if encoding.unlike is None else encoding.unlike.copy()
        if encoding.dummy_space and len(marks):
            # A tokenizer that begins every text with a space begins every segment so.
            dummy_space |= not ids
            marks[0] |= bool(ids)
        names |= {len(ids) + place: name for place, name in encoding.names.items()}
        ids += encoding.ids
        ends.append(encoding.ends + size)
        unlike.append(marks)
        size += len(text.encode())
    marks = np.concatenate([np.zeros(0, dtype=bool), *unlike])
    every = np.concatenate([np.zeros(0, dtype=np.int64), *ends])
    return Encoding(ids, every, dummy_space, marks if marks.any() else None, names)


def _byte_places(text: str) -> np.ndarray:
    """[characters + 1] the byte at which each character begins."""
    if text.isascii():
        return np.arange(len(text) + 1)
    return np.concatenate([[0], np.cumsum([len(character.encode("utf-8", "replace")) for character in text])])
