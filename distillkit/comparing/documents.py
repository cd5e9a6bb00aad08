"""The held-out documents of a run, known by their texts: those of two runs are the same where every byte of them is."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from distillkit.data.conversation import Conversation
from distillkit.data.examples import load_examples
from distillkit.errors import PreconditionError
from distillkit.run.directory import RunDirectory
from distillkit.storage import records_problem

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class HeldOutDocument:
    """A document as a run has it in its test part.

    Attributes:
        number: the run's own, as in validation_details.json.
        pieces: the texts that were taken of it, in the order of the part; of a conversation its canonical form.
    """

    number: int
    pieces: tuple[str, ...]

    @property
    def digest(self) -> bytes:
        """Equal for documents of which the same pieces were taken, whatever their numbers and order."""
        pieces = sorted(hashlib.blake2b(piece.encode("utf-8", "replace")).digest() for piece in self.pieces)
        return hashlib.blake2b(b"".join(pieces), digest_size=16).digest()


def held_out_documents(run: RunDirectory) -> list[HeldOutDocument]:
    """The test part of a run, in the order of its documents' numbers.

    Raises:
        PreconditionError: it is not there, or not as it was written.
    """
    pieces: dict[int, list[str]] = {}
    for number, text in _texts(run, "test"):
        pieces.setdefault(number, []).append(text)
    return [HeldOutDocument(number, tuple(pieces[number])) for number in sorted(pieces)]


def learnt_texts(run: RunDirectory) -> Iterator[str]:
    """The texts that a student was trained on, and those that chose the best one.

    Raises:
        PreconditionError: a part is not there, or not as it was written.
    """
    for part in ("train", "validation"):
        for _, text in _texts(run, part):
            yield text


def said(text: str, *, conversation: bool, by: tuple[str, ...] = ("system", "user", "assistant")) -> list[str]:
    """What a text says: itself, or of a conversation the turns of these roles."""
    if not conversation:
        return [text]
    return [turn.text for turn in Conversation.from_canonical(text).turns if turn.role in by]


def _texts(run: RunDirectory, part: Part) -> Iterator[tuple[int, str]]:
    """(document, text) of every example of a part."""
    folder = f"data/{part}"
    record = run.record("prepare-data")
    outputs = [item.model_dump() for item in record.outputs if item.path.startswith(f"{folder}/")] if record else []
    try:
        problem = records_problem(run.path, outputs)
        stored = load_examples(run.path / folder) if problem is None else None
    except (OSError, ValueError) as error:
        problem, stored = str(error), None
    if stored is None:
        raise PreconditionError(
            f"{run.path}: its {part} texts are needed for a comparison, and {problem}",
            hint=f"prepare them again: distillkit prepare-data --run {shlex.quote(str(run.path))} --force",
        )
    for example in stored.select_columns(["document", "text"]):
        yield int(example["document"]), example["text"]
