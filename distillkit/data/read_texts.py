"""Texts as both models of a pair read them: as they are, or as both tokenizers normalise them; and what cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distillkit.alignment.encoding import Encoding, unknown_ids
from distillkit.alignment.normalising import first_unreadable, kind_of_change, normalised
from distillkit.data.text_encoder import TextEncoder
from distillkit.wording import counted


@dataclass(frozen=True)
class ReadText:
    """A text and its two encodings (the student's twice where both read the same tokens).

    Attributes:
        text: what is read: the text that was given, or what the tokenizers make of it.
    """

    text: str
    student: Encoding
    teacher: Encoding


@dataclass
class ReadingProblems:
    """What happened to texts on their way into the tokenizers; roles are "student" and "teacher".

    Attributes:
        dropped: by role, texts that its tokenizer cannot read.
        first_dropped: by role, the first such character.
        unknown: by role, texts of which its tokenizer does not know all characters, and reads a token for unknown ones.
        first_unknown: by role, the first such character.
        changed: by role, documents that its tokenizer changed, by kind of change.
    """

    dropped: Counter[str] = field(default_factory=Counter)
    first_dropped: dict[str, str] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    first_unknown: dict[str, str] = field(default_factory=dict)
    changed: dict[str, Counter[str]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """`normalised` of data/stats.json: documents by role and kind of change."""
        return {role: dict(kinds) for role, kinds in self.changed.items()}

    def lines(self, *, shared: bool) -> list[str]:
        """For people, a line for each kind of change and for what a tokenizer does not know.

        Args:
            shared: both models have one tokenizer.
        """
        found = [
            f"{kind}: {counted(count, 'text')} changed, as {tokenizer_of(role, shared=shared)} does"
            for role, kinds in self.changed.items()
            for kind, count in kinds.items()
        ]
        return found + [
            f"{counted(count, 'text has', 'texts have')} characters that {tokenizer_of(role, shared=shared)} does not know "
            f"(first {self.first_unknown[role]}): it reads its token for unknown ones there"
            for role, count in self.unknown.items()
        ]

    def dropped_lines(self, *, shared: bool) -> list[str]:
        """For people, a line for each tokenizer that could not read texts."""
        return [
            f"{counted(count, 'text was', 'texts were')} dropped: {tokenizer_of(role, shared=shared)} cannot read "
            f"{'it' if count == 1 else 'them'} "
            f"(first {self.first_dropped[role]})"
            for role, count in self.dropped.items()
        ]


def tokenizer_of(role: str, *, shared: bool) -> str:
    """ "the student's tokenizer"; "the tokenizer" where both models have the same one."""
    return "the tokenizer" if shared else f"the {role}'s tokenizer"


class TextReader:
    """Reads texts with both tokenizers.

    Args:
        student: how the student reads.
        teacher: how the teacher reads; None where it has the student's tokenizer.
    """

    def __init__(self, student: TextEncoder, teacher: TextEncoder | None) -> None:
        self.encoders = {"student": student} if teacher is None else {"student": student, "teacher": teacher}
        self.unknown = {role: frozenset() if e.exact else unknown_ids(e.tokenizer) for role, e in self.encoders.items()}
        self.readings = {role: encoder.reading() for role, encoder in self.encoders.items()}
        self.problems = ReadingProblems()

    def read(self, texts: Sequence[str], *, whole: bool) -> list[ReadText | None]:
        """Each text with its encodings; None where one of the tokenizers cannot read it.

        Args:
            whole: these are documents, of which is counted what was changed in them.
        """
        found = self._encode(texts)
        failed = [index for index, item in enumerate(found) if item is None]
        if failed:
            originals = [texts[index] for index in failed]
            after = normalised(originals, list(self.readings.values()))
            readable = iter(self._encode([text for text in after if text is not None]))
            for index, text in zip(failed, after, strict=True):
                found[index] = None if text is None else next(readable)
            self._note_dropped([texts[index] for index in failed if found[index] is None])
            if whole:
                self._note_changed([texts[index] for index in failed if found[index] is not None])
        for item in found:
            if item is not None and not whole:
                self._note_unknown(item)
        return found

    def _encode(self, texts: Sequence[str]) -> list[ReadText | None]:
        sides = [encoder.encode(texts) for encoder in self.encoders.values()]
        return [
            None if student is None or teacher is None else ReadText(text, student, teacher)
            for text, student, teacher in zip(texts, sides[0], sides[-1], strict=True)
        ]

    def _note_changed(self, texts: Sequence[str]) -> None:
        """Who changed them: each tokenizer for which a text as it is would not do."""
        for role, reading in self.readings.items():
            for before, after in zip(texts, reading(texts), strict=True):
                if after is not None and after != before:
                    self.problems.changed.setdefault(role, Counter())[kind_of_change(before, after)] += 1

    def _note_dropped(self, texts: Sequence[str]) -> None:
        alone = {role: normalised(texts, [reading]) for role, reading in self.readings.items()}
        for index, text in enumerate(texts):
            unable = [role for role in self.readings if alone[role][index] is None]
            # Else each reads it in its way, and there is no text that both read.
            for role in unable or list(self.readings)[-1:]:
                self.problems.dropped[role] += 1
                if role not in self.problems.first_dropped:
                    reading = self.readings[role]
                    self.problems.first_dropped[role] = first_unreadable(
                        text, lambda parts, reading=reading: normalised(parts, [reading])
                    )

    def _note_unknown(self, item: ReadText) -> None:
        for role, encoding in zip(self.encoders, (item.student, item.teacher), strict=False):
            unknown = self.unknown[role]
            if unknown.isdisjoint(encoding.ids):
                continue
            self.problems.unknown[role] += 1
            if role not in self.problems.first_unknown:
                encoder = self.encoders[role]
                self.problems.first_unknown[role] = first_unreadable(
                    item.text,
                    lambda parts, encoder=encoder, unknown=unknown: [
                        part if unknown.isdisjoint(encoder.token_ids(part)) else None for part in parts
                    ],
                )
