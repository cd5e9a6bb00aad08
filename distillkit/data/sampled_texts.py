"""On-policy batches of texts: the student goes on from the beginnings of texts."""

from __future__ import annotations

import random
from collections.abc import Sequence

from distillkit.alignment.encoding import Encoding
from distillkit.alignment.rows import aligned_rows
from distillkit.data.samples import (
    Sample,
    SampleReader,
    beginning_of,
    continued,
    fitting,
    paired_row,
    shared_row,
    spelled,
    spelling_table,
    whole_characters,
)
from distillkit.data.stored_rows import Rows
from distillkit.data.text_encoder import TextEncoders
from distillkit.data.training_rows import Row

# A beginning of a text is its first so many tokens, never more than half of it.
SHORTEST_PROMPT, LONGEST_PROMPT = 32, 128


class _Texts(SampleReader):
    """The student goes on from the beginnings of texts."""

    def __init__(
        self, rows: Rows, texts: Rows, new_tokens: int, encoders: TextEncoders, limit: int, most_ids: int | None = None
    ) -> None:
        super().__init__(rows, texts, new_tokens, encoders.student, encoders.student.end_id, most_ids)
        self.teacher = encoders.teacher
        self.limit = limit
        self.starts = int(encoders.student.start_id is not None)

    def prompt(self, text: int, chooser: random.Random) -> tuple[int, ...]:
        ids = self.rows.value("student_ids", text)
        half, free = (len(ids) - self.starts) // 2, max(1, self.limit - self.new_tokens)
        kept = self._cut(text, min(chooser.randint(SHORTEST_PROMPT, LONGEST_PROMPT), half, free))
        return tuple(ids[: self.starts + kept]) if kept else ()

    def room(self, prompt: Sequence[int]) -> int:
        return max(0, min(self.new_tokens, self.limit - (len(prompt) - self.starts)))

    def _cut(self, text: int, wanted: int) -> int:
        """So many tokens of a text, or fewer, which its beginning can have; 0: none."""
        return max(0, wanted)


class SharedTexts(_Texts):
    """Texts that both models read as the same tokens.

    Args:
        encoders: how both read.
        paired: whether rows are paired by an alignment all the same.
    """

    def __init__(self, rows: Rows, texts: Rows, new_tokens: int, encoders: TextEncoders, *, paired: bool) -> None:
        limit = min(encoders.student.limit, encoders.teacher.limit)
        super().__init__(rows, texts, new_tokens, encoders, limit, encoders.teacher.rows)
        self.encoders, self.paired = encoders, paired

    def read(self, sample: Sample) -> Row:
        ids = self._ended(sample, sample.written, sample.ended)
        plain = [*sample.prompt[self.starts :], *sample.written]
        return shared_row(
            ids, self.teacher.with_specials(plain, sample.ended), len(sample.prompt), self.encoders, self.paired
        )


class PairedTexts(_Texts):
    """Texts that the teacher reads with a tokenizer of its own: the student's tokens are those that it wrote, the teacher's
    its encoding of the same bytes."""

    def __init__(self, rows: Rows, texts: Rows, new_tokens: int, encoders: TextEncoders) -> None:
        super().__init__(rows, texts, new_tokens, encoders, encoders.student.limit)
        self.table = spelling_table(encoders.student)

    def read(self, sample: Sample) -> Row | None:
        kept = len(sample.prompt) - self.starts
        whole = self._encoded(sample.text)
        if whole is None:
            return None
        beginning = self.texts.value("text", sample.text).encode()[: int(whole.ends[kept - 1])]
        written, ended = list(sample.written), sample.ended
        while True:
            size = whole_characters(self.table, written)
            written, ended = written[:size], ended and size == len(written)
            data = beginning + spelled(self.table, written)
            teacher = self.teacher.encode([data.decode()])[0]
            if teacher is None or not self.teacher.can_read(teacher.ids) or not (written or ended):
                return None
            if len(teacher.ids) <= self.teacher.limit:
                break
            room = int(teacher.ends[self.teacher.limit - 1]) - len(beginning)
            written, ended = written[: fitting(self.table, written, room)], False
        student = continued(beginning_of(whole, kept), self.table, written)
        rows = aligned_rows(
            student, teacher, data,
            student_start=bool(self.starts), teacher_start=self.teacher.start_id is not None,
            student_has_eos=ended and self.end is not None, teacher_has_eos=self.teacher.adds_end(teacher.ids, ended),
        )  # fmt: skip
        ids = self._ended(sample, written, ended)
        return paired_row(ids, self.teacher.with_specials(teacher.ids, ended), len(sample.prompt), rows)

    def _cut(self, text: int, wanted: int) -> int:
        """Between two characters, and behind an ordinary token."""
        whole = self._encoded(text)
        if whole is None:
            return 0
        data = self.texts.value("text", text).encode()
        for kept in range(min(wanted, len(whole.ids) - 1), 0, -1):
            end = int(whole.ends[kept - 1])
            ordinary = self.table.pieces[whole.ids[kept - 1]] is not None
            if ordinary and 0 < end < int(whole.ends[kept]) and data[end] & 0xC0 != 0x80:
                return kept
        return 0

    def _encoded(self, text: int) -> Encoding | None:
        return self.student.encode([self.texts.value("text", text)])[0]
