"""A first look at the texts of a run, before any is prepared: would they be refused, and how many examples are there at most?

At most the first rows of a file are decoded, by the readers that the run itself uses, so what is refused here is refused
there in the same words. Nothing is fetched: of a set on the Hub, and of what comes with Python, nothing is known here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distillkit.console import Console
from distillkit.data.compression import packing_of, read_head
from distillkit.data.document_kinds import OneKind
from distillkit.data.document_marks import END_MARKS
from distillkit.data.files import SourceFiles, StoredFile, find_files
from distillkit.data.formats import file_kind
from distillkit.data.notes import ReadingNotes
from distillkit.data.reading_options import ReadingOptions
from distillkit.data.sources import local_path, local_texts, no_text, output_folder, source_configs
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters

Known = Literal["prepared", "counted", "first rows", "not looked at"]
"""How much is known of the texts of a run before it begins."""

# Such files are looked through as a whole: in a fraction of a second.
_MOST_BYTES = 16 << 20
_LINES, _RUNNING_TEXT = ("jsonl", "ndjson"), ("txt", "text", "md", "markdown")
# A source is cut finer where it has fewer documents than there are parts: train, validation, test.
_FEWEST = 3
# Texts longer than so many bytes for each token of an example may be cut, before they are cut into examples.
_CUT_BYTES_PER_TOKEN = 6
# The tokens for start and end of a text take their place in an example.
_SPECIALS = 2


@dataclass(frozen=True)
class FirstLook:
    """What is known of the texts of a run that has not read them.

    Attributes:
        examples: to train on, at most.
        known: "counted" where there are fewer texts than the configuration asks for, "first rows" where the examples are those
            that it asks for, "not looked at" where (some of) the texts are not in files of this machine.
    """

    examples: int
    known: Known


def look_at_texts(config: Parameters, output_dir: Path | None = None) -> FirstLook:
    """Refuse texts that the run would refuse at once, and bound their number.

    Args:
        output_dir: where the run lies, as for `load_documents`.

    Raises:
        UsageError: as `load_documents`, as far as the first rows tell.
    """
    examples, known = 0, set[Known]()
    for own in source_configs(config):
        found = _look_at(own, output_dir)
        examples += min(found.examples, own.sample_size)
        known.add(found.known)
    order: tuple[Known, ...] = ("not looked at", "first rows", "counted")
    return FirstLook(min(examples, config.sample_size), next(one for one in order if one in known))


def _look_at(config: Parameters, output_dir: Path | None) -> FirstLook:
    path = local_path(config)
    if path is None:
        return FirstLook(config.sample_size, "not looked at")
    notes = ReadingNotes()
    source = find_files(path, notes, output_dir or output_folder(config))
    if any(_is_read_whole(name, file) for name, file in source.files.items()):
        return FirstLook(config.sample_size, "first rows")
    kind = OneKind(ReadingOptions.of(config))
    local = local_texts(config, path, source, kind, notes, Console(quiet=True))
    # One of each split: it comes after the rows by which a reader chooses the column, and what the rows are. Each reader is
    # let go of at once: it has its file open.
    first = [next(local.documents.pop(split), None) for split in source.splits]
    if not any(first):
        raise no_text(local.description, notes)
    talks = kind.first is not None and kind.first.conversation is not None
    count = _most_examples(source, config.max_length, conversations=talks)
    if count is None or count >= config.sample_size:
        return FirstLook(config.sample_size, "first rows")
    return FirstLook(count, "counted")


def _is_read_whole(name: str, file: StoredFile) -> bool:
    """Whether even the first row costs much: a large file that is one JSON value."""
    return file_kind(Path(name)) == "json" and file.size > _MOST_BYTES


def _most_examples(source: SourceFiles, max_length: int, *, conversations: bool) -> int | None:
    """How many examples the texts give at most, whatever their tokenizer; None where that is not cheap to know."""
    if sum(file.size for file in source.files.values()) > _MOST_BYTES:
        return None
    total = 0
    for name, file in source.files.items():
        count = _examples_of_file(name, file, max_length, conversations=conversations)
        if count is None:
            return None
        total += count
    return max(total, _FEWEST)


def _examples_of_file(name: str, file: StoredFile, max_length: int, *, conversations: bool) -> int | None:
    kind = file_kind(Path(name))
    if file.member is not None or packing_of(read_head(file.path, name)) is not None:
        return None
    try:
        content = file.path.read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror or error})") from error
    if kind in _RUNNING_TEXT and not conversations:
        parts = 1 + sum(content.count(mark.encode()) for mark in END_MARKS)
        return parts + _pieces(len(content), max_length)
    if kind in _LINES:
        return _examples_of_lines(content.splitlines(), max_length, conversations=conversations)
    return None


def _examples_of_lines(lines: Iterable[bytes], max_length: int, *, conversations: bool) -> int | None:
    """Of JSON Lines; None where a line is no row of its own."""
    total = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(row, (dict, str)):
            return None
        total += _turns(row) if conversations else _pieces(len(line), max_length)
    return total


def _turns(row: Any) -> int:
    """A long conversation is parted between its turns."""
    cells = row.values() if isinstance(row, dict) else ()
    return max(1, sum(len(cell) for cell in cells if isinstance(cell, list)))


def _pieces(size: int, max_length: int) -> int:
    """Into how many examples a text of so many bytes is cut at most: no token is shorter than a byte, a piece that ends
    at a word fills half of the room at least, and a long text may be cut once more before."""
    room = max(1, max_length - _SPECIALS)
    if size <= room:
        return 1
    return -(-2 * size // room) + -(-size // (_CUT_BYTES_PER_TOKEN * max_length))
