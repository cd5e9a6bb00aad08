"""Files of running text (`.txt`, `.md`) -> rows: sections of at most so many bytes, cut where it hurts least."""

from __future__ import annotations

from collections.abc import Iterator

from distillkit.data.document_marks import MarkCount, parted
from distillkit.data.formats import DataFile, file_kind
from distillkit.data.rows import Row
from distillkit.data.sections import stream_sections
from distillkit.data.text_decoding import decode_blocks


def read_plain_text(file: DataFile) -> Iterator[Row]:
    """A row for each section; all but the last one of a document are cut from a longer text.

    The file is one document, unless marks part it (`ReadingOptions.end_marks`).

    Raises:
        UsageError: the file cannot be read or decoded.
    """
    with file.open() as stream:
        blocks = decode_blocks(stream, file.name, file.notes, file.options.encoding)
        marks, count = file.options.end_marks, MarkCount()
        for part in parted(blocks, marks, count, markdown=file_kind(file.path) in ("md", "markdown")):
            for section in stream_sections(part.blocks, file.piece_bytes):
                yield Row(section.text, f"{file.name}:{part.line + section.line - 1}", section.is_last)
        file.notes.count(f"end-of-text marks that part the documents of {file.name}", count.times)
