"""On-policy batches of conversations: the student answers what their last answers answer."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from distillkit.alignment.encoding import Encoding
from distillkit.alignment.rows import AlignedRows
from distillkit.alignment.turns import TurnPart, aligned_turns, turn_part
from distillkit.data.chat_template import TemplateRefusalError
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.conversation_reader import ConversationReader, ReadConversation
from distillkit.data.sampled_texts import PairedTexts, SharedTexts
from distillkit.data.samples import (
    Sample,
    SampleReader,
    continued,
    paired_row,
    shared_row,
    spelled,
    spelling_table,
    whole_characters,
)
from distillkit.data.stored_rows import Rows
from distillkit.data.template_choice import TemplatePair
from distillkit.data.text_encoder import TextEncoders
from distillkit.data.training_rows import Row


class _Answers(SampleReader):
    """The student answers what the last answer of a conversation answers."""

    def __init__(
        self, rows: Rows, texts: Rows, new_tokens: int, reader: ConversationReader, longest: int,
        most_ids: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(rows, texts, new_tokens, reader.encoder, reader.template.end_id, most_ids)
        self.reader, self.longest = reader, longest

    def asked(self, text: int) -> tuple[Turn, ...]:
        """All turns before the last answer."""
        return Conversation.from_canonical(self.texts.value("text", text)).prompt

    def prompt(self, text: int, chooser: random.Random) -> tuple[int, ...]:
        asked = self.asked(text)
        try:
            # An answer that opens a conversation answers nothing.
            ids = self.reader.prompt_ids(asked) if asked else None
        except TemplateRefusalError:
            return ()  # It renders the conversation only together with what comes after.
        return tuple(ids) if ids and self.student.can_read(ids) and self.room(ids) else ()

    def room(self, prompt: Sequence[int]) -> int:
        return max(0, min(self.new_tokens, self.longest - len(prompt) - 1))


class SharedAnswers(_Answers):
    """Conversations that both models read as the same tokens."""

    def __init__(
        self, rows: Rows, texts: Rows, new_tokens: int, reader: ConversationReader, encoders: TextEncoders, *, paired: bool
    ) -> None:  # fmt: skip
        longest = min(encoders.student.longest, encoders.teacher.longest)
        super().__init__(rows, texts, new_tokens, reader, longest, encoders.teacher.rows)
        self.encoders, self.paired = encoders, paired

    def read(self, sample: Sample) -> Row:
        ids = self._ended(sample, sample.written, sample.ended)
        return shared_row(ids, ids, len(sample.prompt), self.encoders, self.paired)


class PairedAnswers(_Answers):
    """Conversations that the teacher reads in a template or with a tokenizer of its own: contents are paired by their bytes,
    end of turn with end of turn."""

    def __init__(
        self, rows: Rows, texts: Rows, new_tokens: int, reader: ConversationReader, teacher: ConversationReader
    ) -> None:
        super().__init__(rows, texts, new_tokens, reader, reader.encoder.longest)
        self.teacher = teacher
        self.table = spelling_table(reader.encoder)

    def read(self, sample: Sample) -> Row | None:
        written, ended = list(sample.written), sample.ended
        asked = self.asked(sample.text)
        while True:
            size = whole_characters(self.table, written)
            written, ended = written[:size], ended and size == len(written)
            found = self._teachers(asked, spelled(self.table, written).decode(), ended)
            if found is None or not (written or ended):
                return None
            if len(found.ids) <= self.teacher.encoder.longest:
                break
            written, ended = written[: len(written) * 3 // 4], False
        ids, begin = self._ended(sample, written, ended), len(sample.prompt)
        rows = self._rows(written, begin, len(ids) - 1 if ended else None, found)
        return None if rows is None else paired_row(ids, found.ids, begin, rows)

    def _teachers(self, asked: Sequence[Turn], answer: str, ended: bool) -> ReadConversation | None:
        """The conversation with this answer as the teacher reads it."""
        # The space that a SentencePiece token brings stands for the one that templates write in front of an answer.
        said = answer.removeprefix(" ") if self.table.leading_space else answer
        try:
            found = self.teacher.read([*asked, Turn("assistant", said)])
        except TemplateRefusalError:
            return None
        if found is None or not self.teacher.encoder.can_read(found.ids):
            return None
        return found if ended else found.without_end()

    def _rows(self, written: Sequence[int], begin: int, end: int | None, found: ReadConversation) -> AlignedRows | None:
        """The rows of the answer, in both conversations.

        Args:
            begin: the place of the first written token; end: that of the end-of-turn token, None where there is none.
        """
        turn, data = found.turns[-1], spelled(self.table, written)
        theirs = turn.text.encode()
        at = data.find(theirs)
        if turn.content is None or at < 0:
            return None  # The template writes something else.
        own = continued(Encoding([], np.zeros(0, dtype=np.int64)), self.table, written)
        part = turn_part(own, data, at, at + len(theirs), table=self.table)
        student = TurnPart(part.encoding, begin + part.first, end)
        return aligned_turns(
            [(student, self.teacher.part(found, turn, turn.content), theirs)],
            positions=len(written) + (end is not None), size=len(data),
        )  # fmt: skip


# --- which of them ----------------------------------------------------------------------------------------------------


def sample_reader(
    rows: Rows,
    texts: Rows,
    new_tokens: int,
    encoders: TextEncoders,
    templates: TemplatePair | None,
    *,
    same: bool,
    paired: bool,
) -> SampleReader:
    """How the samples of a run are read.

    Args:
        rows, texts, new_tokens: as for `SampleReader`.
        templates: of conversations; None for texts.
        same: whether both models read the same tokens.
        paired: whether rows are paired by an alignment.

    Raises:
        PreconditionError: the bytes that the student writes cannot be told from its tokens.
    """
    if templates is None:
        if same:
            return SharedTexts(rows, texts, new_tokens, encoders, paired=paired)
        return PairedTexts(rows, texts, new_tokens, encoders)
    student, teacher = templates.readers(encoders)
    if same:
        return SharedAnswers(rows, texts, new_tokens, student, encoders, paired=paired)
    return PairedAnswers(rows, texts, new_tokens, student, teacher)
