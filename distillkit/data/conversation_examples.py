"""Conversations to examples: read by both models in their own templates, cut between turns, answers paired byte by byte."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from distillkit.alignment.rows import AlignedRows
from distillkit.alignment.turns import aligned_turns
from distillkit.data.chat_template import TemplateRefusalError
from distillkit.data.conversation import Conversation, Role, Turn
from distillkit.data.conversation_pieces import Exchange, longest_fitting, pieces_of
from distillkit.data.conversation_reader import ConversationReader, ReadConversation, ReadTurn
from distillkit.data.document import Document
from distillkit.data.example_builder import BuildNotes, share_of
from distillkit.data.examples import Example
from distillkit.data.read_texts import TextReader
from distillkit.data.rendering import Span, joined
from distillkit.interrupts import check_interrupted
from distillkit.settings.parameters import TrainOn
from distillkit.wording import counted

_EVERYBODY: tuple[Role, ...] = ("system", "user", "assistant")


@dataclass
class ConversationNotes(BuildNotes):
    """What happened while conversations were read.

    Attributes:
        refused: those that a template cannot render, or in which it cannot be told where the answers stand.
        first_refusal: why, of the first of them.
        parted: those that were cut between turns.
        shortened: pieces whose user's turn was cut from its left, so that the answer fits.
        cut_answers: pieces whose answer alone is too long: cut at its end, without an end of turn.
        unpaired: turns that the two templates write with other contents.
    """

    refused: int = 0
    first_refusal: str = ""
    parted: int = 0
    shortened: int = 0
    cut_answers: int = 0
    unpaired: int = 0

    def record(self) -> dict[str, int]:
        """`conversations` of data/stats.json, the counts."""
        names = ("refused", "parted", "shortened", "cut_answers", "unpaired")
        return {name: getattr(self, name) for name in names}

    def lines(self) -> list[str]:
        """For people, a line for each thing that was done to conversations."""
        done = (
            (self.parted, "conversation is", "conversations are",
             "longer than an example: cut between turns, the system's turn in front of each piece"),
            (self.shortened, "answer leaves", "answers leave", "no room for all that comes before: it is cut from its left"),
            (self.cut_answers, "answer is", "answers are", "longer than an example: cut at the end, without an end of turn"),
            (self.unpaired, "turn has", "turns have",
             "other contents in the two templates: trained on, not scored, no targets of the teacher's"),
        )  # fmt: skip
        return [f"{counted(count, one, several)} {what}" for count, one, several, what in done if count]

    def dropped_lines(self) -> list[str]:
        """For people, a line for conversations that were left out."""
        if not self.refused:
            return []
        return [
            f"{counted(self.refused, 'conversation was', 'conversations were')} dropped: a chat template cannot render "
            f"{'it' if self.refused == 1 else 'them'} ({self.first_refusal})"
        ]


@dataclass(frozen=True)
class _Pair:
    """A conversation as both read it (twice the student's where both read the same tokens), and the turns that are the same
    in both: the student's, the teacher's, and the bytes that both have of them."""

    turns: tuple[Turn, ...]
    student: ReadConversation
    teacher: ReadConversation
    shared: tuple[tuple[ReadTurn, ReadTurn, Span | None, Span | None], ...]


_Piece = _Pair | tuple[Turn, ...] | Exchange


class ConversationExampleBuilder:
    """Reads conversations for both models; the counterpart of `data.example_builder.ExampleBuilder`.

    Args:
        student: how the student reads.
        teacher: how the teacher reads; None where it has the student's tokenizer and template.
        align: whether rows of the two are to be paired (white box).
        seed: which pieces of a long conversation are taken.
        train_on: whose turns are targets, and scored.
    """

    def __init__(
        self,
        student: ConversationReader,
        teacher: ConversationReader | None,
        *,
        align: bool,
        seed: int,
        train_on: TrainOn = "assistant",
    ) -> None:
        self.student = student
        self.teacher = teacher
        self.align = align and teacher is not None
        self.seed = seed
        self.roles: tuple[Role, ...] = ("assistant",) if train_on == "assistant" else _EVERYBODY
        self.texts = TextReader(student.encoder, teacher.encoder if teacher else None)
        self.notes = ConversationNotes(problems=self.texts.problems)

    def build(self, documents: Sequence[Document], wanted: int) -> Iterator[Example]:
        """At most `wanted` examples, spread evenly over the conversations; of a long one random pieces are taken."""
        built = 0
        left: list[tuple[int, _Piece]] = []
        for number, document in enumerate(documents):
            check_interrupted()
            pieces = self._pieces(document.conversation)
            random.Random(f"{self.seed}/{number}").shuffle(pieces)
            room = share_of(wanted, len(documents), number)
            for piece in pieces:
                if room == 0:
                    left.append((number, piece))
                elif (example := self._made(number, piece)) is not None:
                    yield example
                    room -= 1
                    built += 1
                    if built == wanted:
                        return
        # Some conversations were too short to give their part: the others give more.
        random.Random(self.seed).shuffle(left)
        for number, piece in left:
            check_interrupted()
            if (example := self._made(number, piece)) is not None:
                yield example
                built += 1
                if built == wanted:
                    return

    def read_again(self, number: int, turns: Sequence[Turn], *, cut: bool) -> Example | None:
        """The example of turns of which one has been made before, for another teacher; None where it cannot read them, or they
        are too long for it.

        Args:
            number: of the conversation.
            cut: the last turn has no end.
        """
        try:
            pair = self._pair(turns)
        except TemplateRefusalError:
            return None
        return self._example(number, pair, cut=cut) if pair is not None and self._fits(pair, cut=cut) else None

    # --- reading ---

    def _pieces(self, conversation: Conversation | None) -> list[_Piece]:
        """What examples are made of: the whole conversation, or pieces of it."""
        found = None if conversation is None else self._read(_until_last_answer(conversation.turns))
        if found is None:
            return []
        if self._fits(found):
            return [found]
        parts = pieces_of(found.turns, lambda turns: self._fits(self._read(turns, quiet=True)))
        self.notes.parted += len(parts) > 1
        return list(parts)

    def _made(self, number: int, piece: _Piece) -> Example | None:
        if isinstance(piece, Exchange):
            return self._squeezed(number, piece)
        pair = piece if isinstance(piece, _Pair) else self._read(piece)
        return None if pair is None else self._example(number, pair, cut=False)

    def _read(self, turns: Sequence[Turn], *, quiet: bool = False) -> _Pair | None:
        """The conversation as both read it; None where one of them cannot.

        Args:
            quiet: nothing is counted: it is only asked whether it fits.
        """
        refusal = ""
        for attempt in (tuple(turns), joined(turns)):
            try:
                pair = self._paired(attempt)
            except TemplateRefusalError as error:
                refusal = refusal or str(error)
                continue
            if pair is not None:
                return pair
            texts = [
                item if item is None else item.text
                for item in self.texts.read([t.text for t in attempt], whole=not quiet)
            ]
            readable = [text for text in texts if text is not None]
            if len(readable) == len(attempt):
                pair = self._paired([Turn(turn.role, text) for turn, text in zip(attempt, readable, strict=True)])
                if pair is not None:
                    return pair
            self.notes.inexact += not quiet
            return None
        if not quiet:
            self.notes.refused += 1
            self.notes.first_refusal = self.notes.first_refusal or refusal
        return None

    def _paired(self, turns: Sequence[Turn]) -> _Pair | None:
        pair = self._pair(turns)
        stripped = tuple(Turn(turn.role, turn.text.strip()) for turn in turns)
        differs = pair is not None and any(ours.text != theirs.text for ours, theirs, *_ in pair.shared)
        # What one template strips is stripped for both, so that both are trained on and scored by the same bytes.
        return self._pair(stripped) if differs and stripped != tuple(turns) else pair

    def _pair(self, turns: Sequence[Turn]) -> _Pair | None:
        student = self.student.read(turns)
        teacher = student if self.teacher is None else self.teacher.read(turns)
        if student is None or teacher is None:
            return None
        shared = [(*pair, *_shared(*pair)) for pair in _same_turns(student, teacher)]
        return _Pair(tuple(turns), student, teacher, tuple(shared))

    # --- lengths ---

    def _fits(self, pair: _Pair | None, *, cut: bool = False) -> bool:
        if pair is None:
            return False
        sides = ((pair.student, self.student), (pair.teacher, self.teacher or self.student))
        return all(len((read.without_end() if cut else read).ids) <= reader.encoder.longest for read, reader in sides)

    def _squeezed(self, number: int, exchange: Exchange) -> Example | None:
        """An answer that does not fit with what precedes it: the context is cut from its left, at last the answer too."""

        def fits(turns: Sequence[Turn], *, cut: bool = False) -> bool:
            return self._fits(self._read(turns, quiet=True), cut=cut)

        found = longest_fitting(exchange, fits)
        if found is None:
            self.notes.inexact += 1
            return None
        pair = self._read(found.turns)
        if pair is None:
            return None
        self.notes.shortened += not found.cut
        self.notes.cut_answers += found.cut
        return self._example(number, pair, cut=found.cut)

    # --- examples ---

    def _example(self, number: int, pair: _Pair, *, cut: bool) -> Example | None:
        if cut:
            student = pair.student.without_end()
            teacher = student if self.teacher is None else pair.teacher.without_end()
            pair = replace(pair, student=student, teacher=teacher)
            pair = replace(pair, shared=tuple((*two, *_shared(*two)) for two in _same_turns(student, teacher)))
        targets = [self._targets(read) for read in (pair.student, pair.teacher)]
        scored: tuple[list[Span], list[Span]] = ([], [])
        size = 0
        for ours, _, own, their in pair.shared:
            if ours.role not in self.roles:
                continue
            if own is None or their is None:
                self.notes.unpaired += 1
                continue
            if own[0] == own[1]:
                continue
            spans = pair.student.tokens(own), pair.teacher.tokens(their)
            # Nothing predicts the first token of a conversation: a content that begins with it is not scored.
            if min(span[0] for span in spans) > 0:
                size += own[1] - own[0]
                for side, span in zip(scored, spans, strict=True):
                    side.append(span)
        if not targets[0] or not targets[1]:
            self.notes.too_short += 1
            return None
        return Example(
            document=number, text=Conversation(pair.turns).canonical(), bytes=size, ends_text=not cut,
            student_ids=pair.student.ids, teacher_ids=pair.teacher.ids,
            student_tokens=len(pair.student.ids), teacher_tokens=len(pair.teacher.ids), rows=self._rows(pair, targets[0]),
            target_spans=targets[0], teacher_target_spans=targets[1],
            student_scored=scored[0], teacher_scored=scored[1],
        )  # fmt: skip

    def _targets(self, read: ReadConversation) -> list[Span]:
        """The tokens that are targets, of which the first of all is none: nothing predicts it."""
        if len(self.roles) > 1:
            return [(1, len(read.ids))] if len(read.ids) > 1 else []
        spans = [(max(1, turn.target[0]), turn.target[1]) for turn in read.turns if turn.target is not None]
        return [span for span in spans if span[0] < span[1]]

    def _rows(self, pair: _Pair, targets: Sequence[Span]) -> AlignedRows | None:
        if not self.align or self.teacher is None:
            return None
        turns = []
        size = 0
        for ours, theirs, own, their in pair.shared:
            if ours.role in self.roles and own is not None and their is not None:
                parts = self.student.part(pair.student, ours, own), self.teacher.part(pair.teacher, theirs, their)
                turns.append((*parts, pair.student.data[slice(*own)]))
            if ours.role in self.roles:
                size += len(ours.text.encode())
        return aligned_turns(turns, positions=sum(end - begin for begin, end in targets), size=size)


def _until_last_answer(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """What is asked after the last answer teaches nothing."""
    return tuple(turns[: 1 + max(index for index, turn in enumerate(turns) if turn.role == "assistant")])


def _same_turns(student: ReadConversation, teacher: ReadConversation) -> Iterator[tuple[ReadTurn, ReadTurn]]:
    """Turns of one side and of the other that are the same: the first answer of one is the first of the other. The turn of
    the system is none where a template has it in front of the user's."""
    met: Counter[Role] = Counter()
    for turn in student.turns:
        theirs = [other for other in teacher.turns if other.role == turn.role]
        if met[turn.role] < len(theirs):
            yield turn, theirs[met[turn.role]]
        met[turn.role] += 1


def _shared(student: ReadTurn, teacher: ReadTurn) -> tuple[Span | None, Span | None]:
    """The bytes that both have of a turn, in the text of each: all, or the end of the longer one."""
    if student.content is None or teacher.content is None:
        return None, None
    ours, theirs = student.text.encode(), teacher.text.encode()
    size = min(len(ours), len(theirs))
    if ours[len(ours) - size :] != theirs[len(theirs) - size :]:
        return None, None
    return (student.content[1] - size, student.content[1]), (teacher.content[1] - size, teacher.content[1])
