"""Files of running text (`.txt`, `.md`) -> rows: sections of at most so many bytes, cut where it hurts least."""

from __future__ import annotations

from collections.abc import Iterator

from distillkit.data.formats import DataFile
from distillkit.data.rows import Row
from distillkit.data.sections import stream_sections
from distillkit.data.text_decoding import decode_blocks


def read_plain_text(file: DataFile) -> Iterator[Row]:
    """A row for each section; all but the last one are cut from a longer text.

    Raises:
        UsageError: the file cannot be read or decoded.
    """
    with file.open() as stream:
        for section in stream_sections(
            decode_blocks(stream, file.name, file.notes, file.options.encoding), file.piece_bytes
        ):
            yield Row(section.text, f"{file.name}:{section.line}", section.is_last)
