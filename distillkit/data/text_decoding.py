"""Bytes of a file -> text, block by block: UTF-8 with or without a byte-order mark, UTF-16 with one.

Only LF ends a line: U+2028 and its like are ordinary characters. What cannot be decoded is refused with the file, the
line and the byte, never guessed and never replaced.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from typing import IO

from distillkit.data.notes import ReadingNotes
from distillkit.errors import UsageError
from distillkit.interrupts import check_interrupted

BLOCK_BYTES = 1 << 20
# A row must fit into memory together with what is made of it; a longer one is a broken file.
LONGEST_ROW = 256 << 20

_UTF32_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_MARKS = {
    codecs.BOM_UTF8: ("utf-8", "byte-order mark removed"),
    codecs.BOM_UTF16_LE: ("utf-16-le", "read as UTF-16 (little endian)"),
    codecs.BOM_UTF16_BE: ("utf-16-be", "read as UTF-16 (big endian)"),
}


def decode_blocks(stream: IO[bytes], name: str, notes: ReadingNotes) -> Iterator[str]:
    """The text of `stream` in blocks, with LF line ends.

    Raises:
        UsageError: the bytes are neither UTF-8 nor UTF-16 with a byte-order mark, or hold NUL characters.
    """
    head = stream.read(4)
    if head.startswith(_UTF32_MARKS):
        raise UsageError(f"{name}: UTF-32 is not read", hint=f"iconv -f UTF-32 -t UTF-8 {name} > utf8.txt")
    encoding, mark_length = "utf-8", 0
    for mark, (marked_encoding, remark) in _MARKS.items():
        if head.startswith(mark):
            encoding, mark_length = marked_encoding, len(mark)
            notes.remark(f"{name}: {remark}")
    decoder = codecs.getincrementaldecoder(encoding)()
    line_ends = io.IncrementalNewlineDecoder(None, translate=True)
    offset, line, block = mark_length, 1, head[mark_length:]
    while True:
        check_interrupted()
        block += stream.read(BLOCK_BYTES)
        undecoded = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(encoding, "ignore")
            raise UsageError(
                f"{name}: not valid {encoding.upper()} at line {line + before.count(chr(10)):,}, "
                f"byte {offset - undecoded + error.start:,} ({error.reason})",
                hint=f"if it is in another encoding: iconv -f ENCODING -t UTF-8 {name} > utf8.txt",
            ) from error
        if "\0" in text:
            before = text[: text.index("\0")]
            raise UsageError(
                f"{name}: NUL character at line {line + before.count(chr(10)):,}, "
                f"byte {offset - undecoded + len(before.encode(encoding)):,}: not a text file",
                hint=f"if it is UTF-16 without a byte-order mark: iconv -f UTF-16LE -t UTF-8 {name} > utf8.txt",
            )
        if not block:
            yield line_ends.decode(text, final=True)
            break
        yield line_ends.decode(text)
        offset += len(block)
        line += text.count("\n")
        block = b""
    # `newlines` names the line ends met: a string, a tuple of them, or None.
    if any("\r" in end for end in line_ends.newlines or ()):
        notes.remark(f"{name}: line ends changed to LF")


def decode_lines(blocks: Iterable[str], name: str) -> Iterator[str]:
    """The lines of a text that arrives in blocks, each with its LF; lines are ended by LF alone.

    Raises:
        UsageError: a line is longer than `LONGEST_ROW`.
    """
    begun: list[str] = []  # The line that is not yet complete.
    length = line = 0
    for block in blocks:
        pieces = block.split("\n")
        for piece in pieces[:-1]:
            yield "".join((*begun, piece, "\n"))
            begun, length = [], 0
            line += 1
        begun.append(pieces[-1])
        length += len(pieces[-1])
        if length > LONGEST_ROW:
            raise UsageError(f"{name}: line {line + 1:,} is longer than {LONGEST_ROW:,} characters")
    if length:
        yield "".join(begun)
