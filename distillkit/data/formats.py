"""The formats of files that are read: suffixes, their names in messages, and the reader of a file.

Everything follows from `registry.DATA_FORMATS`. A reader is a function from a `DataFile` to its `Row`s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from distillkit import registry
from distillkit.data.bad_rows import BadRow, usable_rows
from distillkit.data.compression import PACKED_SUFFIXES, open_bytes, packing_of, read_head, strip_packing
from distillkit.data.conversation_rows import finished_rows
from distillkit.data.notes import ReadingNotes
from distillkit.data.reading_options import ReadingOptions
from distillkit.data.rows import Row
from distillkit.errors import UsageError


@dataclass(frozen=True)
class DataFile:
    """A file, as its reader needs it.

    Attributes:
        path: where it lies; its suffixes say what is in it.
        name: what it is called in messages and origins.
        options: what the user said of the files.
        piece_bytes: a reader of running text cuts it into rows of at most so many UTF-8 bytes.
        notes: takes what the user should know.
        member: the file inside the zip archive `path` that is meant, None for a file of its own.
    """

    path: Path
    name: str
    options: ReadingOptions
    piece_bytes: int
    notes: ReadingNotes
    member: str | None = None

    @property
    def kind(self) -> str | None:
        """The format that its names tell, "txt" or "csv" for example; None if it is not known.

        That of a file in an archive may be known from the archive's name, that of a blob only from the link to it.
        """
        names = (Path(self.member or ""), self.path, Path(self.name))
        return next((kind for kind in map(file_kind, names) if kind is not None), None)

    @property
    def text_column(self) -> str | None:
        """The column that the user named, None to find it; only for formats that have columns."""
        return self.options.text_column

    @property
    def is_packed(self) -> bool:
        """Whether its bytes come unpacked from a stream, which cannot be read from its end.

        Raises:
            UsageError: it cannot be read.
        """
        return self.member is not None or packing_of(read_head(self.path, self.name)) is not None

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Its bytes, unpacked.

        Raises:
            UsageError: inside the block too: the file cannot be read, or is damaged where it is packed.
        """
        return open_bytes(self.path, self.name, self.member)


def known_suffixes() -> tuple[str, ...]:
    """`.txt`, `.md` …, as they are shown to the user."""
    return tuple(registry.DATA_FORMATS)


def known_suffixes_text() -> str:
    """For hints: `.txt, .md, … (each also as .gz, .bz2, …)`."""
    return f"{', '.join(known_suffixes())} (each also as {', '.join(PACKED_SUFFIXES)})"


def file_kind(path: Path) -> str | None:
    """The format that the name of a file tells ("txt", "csv", …; `.gz` and its like are looked through), None if it is not known."""
    suffix = Path(strip_packing(path.name)).suffix.lower()
    return suffix[1:] if suffix in registry.DATA_FORMATS else None


def read_rows(file: DataFile) -> Iterator[Row]:
    """The rows of a file, by the reader of its format, without bad ones.

    Raises:
        UsageError: the file cannot be used, or has more bad rows than the options allow; the message names file, line and
            byte, or row and column.
    """
    kind = file.kind
    if kind is None:
        raise UsageError(f"{file.name}: unknown format", hint=f"known: {known_suffixes_text()}")
    reader: Callable[[DataFile], Iterator[Row | BadRow]] = registry.resolve(registry.DATA_FORMATS, f".{kind}")
    rows = finished_rows(reader(file), file.options, file.notes)
    return usable_rows(rows, file.options.bad_rows, file.name, file.notes)
