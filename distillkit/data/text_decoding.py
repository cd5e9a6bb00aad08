"""Bytes of a file -> text, block by block: UTF-8, UTF-16 and UTF-32 by their byte-order marks, or the encoding asked for.

Only LF ends a line: U+2028 and its like are ordinary characters. What cannot be decoded is refused with the file, the
line and the byte, and a guess at what it is; never replaced.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from typing import IO

from distillkit.data.encodings import broken_utf8_share, guess_words, is_utf8, little_endian
from distillkit.data.notes import ReadingNotes
from distillkit.errors import UsageError
from distillkit.interrupts import check_interrupted

BLOCK_BYTES = 1 << 20
# A row must fit into memory together with what is made of it; a longer one is a broken file.
LONGEST_ROW = 256 << 20

# Those of UTF-32 first: one of UTF-16 is the beginning of one of them.
_MARKS = {
    codecs.BOM_UTF32_LE: ("utf-32-le", "read as UTF-32 (little endian)"),
    codecs.BOM_UTF32_BE: ("utf-32-be", "read as UTF-32 (big endian)"),
    codecs.BOM_UTF8: ("utf-8", "byte-order mark removed"),
    codecs.BOM_UTF16_LE: ("utf-16-le", "read as UTF-16 (little endian)"),
    codecs.BOM_UTF16_BE: ("utf-16-be", "read as UTF-16 (big endian)"),
}
# Encodings that a mark completes: it says the order of the bytes, or nothing.
_COMPLETED = {"utf-8-sig": ("utf-8",), "utf-16": ("utf-16-le", "utf-16-be"), "utf-32": ("utf-32-le", "utf-32-be")}
# Below this share of broken characters among those beyond ASCII, a file is UTF-8 with damage and not of another encoding.
_DAMAGE = 0.05


def decode_blocks(
    stream: IO[bytes], name: str, notes: ReadingNotes, wanted_encoding: str | None = None
) -> Iterator[str]:
    """The text of `stream` in blocks, with LF line ends.

    Args:
        name: the file, for messages.
        wanted_encoding: the parameter `encoding`; None for UTF-8. A byte-order mark wins over it, which is noted.

    Raises:
        UsageError: the bytes are not of the encoding, or hold NUL characters.
    """
    block = stream.read(max(BLOCK_BYTES, 4))  # A mark is of 4 bytes at most.
    encoding, offset = _encoding_of(block, name, notes, wanted_encoding)
    block = block[offset:] or stream.read(BLOCK_BYTES)
    decoder = codecs.getincrementaldecoder(encoding)()
    line_ends = io.IncrementalNewlineDecoder(None, translate=True)
    line = 1
    while True:
        check_interrupted()
        undecoded = decoder.getstate()[0]
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(encoding, "ignore")
            raise UsageError(
                f"{name}: not valid {encoding.upper()} at line {line + before.count(chr(10)):,}, "
                f"byte {offset - len(undecoded) + error.start:,} ({error.reason})",
                hint=_undecodable_hint(error.object, error.start, encoding),
            ) from error
        if "\0" in text:
            before = text[: text.index("\0")]
            at = len(before.encode(encoding, "replace"))
            raise UsageError(
                f"{name}: NUL character at line {line + before.count(chr(10)):,}, "
                f"byte {offset - len(undecoded) + at:,}: not a text file",
                hint=guess_words(undecoded + block, at, without=encoding, unknown="take the NUL characters out"),
            )
        if not block:
            yield line_ends.decode(text, final=True)
            break
        yield line_ends.decode(text)
        offset += len(block)
        line += text.count("\n")
        block = stream.read(BLOCK_BYTES)
    # `newlines` names the line ends met: a string, a tuple of them, or None.
    if any("\r" in end for end in line_ends.newlines or ()):
        notes.remark_of(name, "line ends changed to LF")


def _encoding_of(head: bytes, name: str, notes: ReadingNotes, wanted: str | None) -> tuple[str, int]:
    """The encoding to decode by, and how many bytes its byte-order mark takes; what is not plain UTF-8 is noted."""
    wanted_name = None if wanted is None else codecs.lookup(wanted).name
    for mark, (encoding, remark) in _MARKS.items():
        if not head.startswith(mark):
            continue
        fits = wanted_name in (None, encoding) or encoding in _COMPLETED.get(wanted_name or "", ())
        notes.remark_of(name, remark + ("" if fits else f", as its byte-order mark says, not as {wanted}"))
        return encoding, len(mark)
    if wanted_name in ("utf-16", "utf-32"):
        sample = head[: len(head) // 4 * 4]
        little = little_endian(sample) if wanted_name == "utf-16" else sample[3::4].count(0) >= sample[0::4].count(0)
        notes.remark_of(name, f"no byte-order mark, read as {'little' if little else 'big'} endian")
        return f"{wanted_name}-{'le' if little else 'be'}", 0
    if wanted is None or wanted_name in ("utf-8", "utf-8-sig"):
        return "utf-8", 0
    if not head.isascii() and is_utf8(head):
        notes.remark_of(name, f"read as {wanted}, as --encoding says, although its beginning is valid UTF-8")
    return wanted, 0


def _undecodable_hint(data: bytes, at: int, encoding: str) -> str:
    if encoding == "utf-8" and 0 < broken_utf8_share(data) < _DAMAGE:
        return "all but a few bytes of the file are UTF-8: mend the place, or fetch the file again"
    return guess_words(data, at, without=encoding)


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
