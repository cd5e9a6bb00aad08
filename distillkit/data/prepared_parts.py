"""The parts of a data set as they are built: written example by example, with what has to be known of all of them counted on the
way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from distillkit.alignment.bpm import BytePrefixMap
from distillkit.alignment.rows import AlignedRows
from distillkit.data.examples import Example, load_examples, save_examples, stored_rows
from distillkit.data.stored_rows import StoredRows
from distillkit.data.text_encoder import TextEncoder
from distillkit.errors import UsageError
from distillkit.storage import explained_write_errors

_ALIGNED = ("positions", "positions_aligned", "positions_on_boundaries", "bytes", "bytes_aligned")


@dataclass
class PreparedPart:
    """One part: train, validation or test.

    Attributes:
        folder: where its examples lie.
        examples, bytes, student_tokens, teacher_tokens: of the part.
        aligned: sums over its `AlignedRows`, under their names.
    """

    folder: Path
    examples: int = 0
    bytes: int = 0
    student_tokens: int = 0
    teacher_tokens: int = 0
    aligned: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_ALIGNED, 0))
    _documents: set[int] = field(default_factory=set)

    @classmethod
    def write(cls, examples: Iterable[Example], folder: Path) -> PreparedPart:
        """Write examples to `folder`, which is made. None of them is kept.

        Raises:
            DistillkitError: they cannot be written.
        """
        part = cls(folder)
        with explained_write_errors(folder):
            save_examples(part._counted(examples), folder)
        return part

    def __len__(self) -> int:
        return self.examples

    @property
    def documents(self) -> int:
        """How many documents the examples come from."""
        return len(self._documents)

    @cached_property
    def rows(self) -> StoredRows:
        """The examples, from the disk."""
        return stored_rows(load_examples(self.folder))

    def token_ids(self, role: str) -> Sequence[list[int]]:
        """What the model of a role reads, example by example."""
        return self.rows.lists(f"{role}_ids")

    def counts(self) -> dict[str, int]:
        """For data/stats.json."""
        return {
            "examples": self.examples,
            "documents": self.documents,
            "bytes": self.bytes,
            "student_tokens": self.student_tokens,
            "teacher_tokens": self.teacher_tokens,
        }

    def tokens_per_byte(self, teacher: TextEncoder, *, conversations: bool) -> float | None:
        """Tokens of the teacher to a byte of what they spell; None where that is not known.

        Of conversations `bytes` are only those that are learnt, while the tokens are those of all turns and of what the
        template puts around them.
        """
        if not conversations:
            return self.teacher_tokens / self.bytes if self.bytes else None
        if teacher.table is None:
            return None
        lengths, tokens, spelled = teacher.table.lengths.clip(min=0), 0, 0
        for ids in map(np.asarray, self.token_ids("teacher")):
            tokens, spelled = tokens + len(ids), spelled + int(lengths[ids[ids < len(lengths)]].sum())
        return tokens / spelled if spelled else None

    def alignment(self, student: TextEncoder, teacher: TextEncoder) -> dict[str, Any]:
        """Coverage of the alignment. `mass_mapped` is the share of teacher tokens met in the text that have a student token;
        the share of the teacher's probability is measured while training (metrics.json).

        Raises:
            UsageError: the bytes of a model's tokens are not known.
        """
        if student.table is None or teacher.table is None:
            raise UsageError("alignment needs token bytes", hint="use --box-type black")
        prefix_map = BytePrefixMap.build(teacher.table, student.table, map_names=student.parse)
        mapped = prefix_map.student_ids.ne(prefix_map.residual_id).numpy()
        spelled = np.array([piece is not None for piece in teacher.table.pieces])
        tokens = met = 0
        for ids in map(np.asarray, self.token_ids("teacher")):
            of_text = ids[spelled[ids]]
            tokens, met = tokens + len(of_text), met + int(mapped[of_text].sum())
        sums = self.aligned
        positions = max(1, sums["positions"])
        return {
            "method": "shared bytes",
            "positions_aligned": sums["positions_aligned"] / positions,
            "positions_on_boundaries": sums["positions_on_boundaries"] / positions,
            "bytes_aligned": sums["bytes_aligned"] / max(1, sums["bytes"]),
            "mass_mapped": met / tokens if tokens else 0.0,
        }

    def _counted(self, examples: Iterable[Example]) -> Iterator[Example]:
        for example in examples:
            self.examples += 1
            self._documents.add(example.document)
            for name in ("bytes", "student_tokens", "teacher_tokens"):
                setattr(self, name, getattr(self, name) + getattr(example, name))
            if example.rows is not None:
                self._add(example.rows)
            yield example

    def _add(self, rows: AlignedRows) -> None:
        for name in _ALIGNED:
            self.aligned[name] += int(getattr(rows, name))
