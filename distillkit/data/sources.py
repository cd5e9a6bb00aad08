"""The configuration's `dataset` or `dataset_path` -> clean documents: finding the source, and reading it."""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distillkit.console import Console
from distillkit.data.document import Document, DocumentSet
from distillkit.data.document_kinds import OneKind
from distillkit.data.files import SourceFiles, find_files, folder_documents, from_here, hash_files
from distillkit.data.formats import file_kind, known_suffixes
from distillkit.data.notes import ReadingNotes
from distillkit.data.python_chat import python_conversations
from distillkit.data.python_docs import interpreter, python_documents
from distillkit.data.reading_options import ReadingOptions
from distillkit.data.sampling import bounded_sample
from distillkit.data.standard_sets import (
    PYTHON_CHAT,
    SPLITS,
    STANDARD_SETS,
    DatasetEntry,
    built_in,
    find_entry,
    known_names,
    parse_hub_reference,
)
from distillkit.errors import UsageError
from distillkit.settings.data_values import mix_sources
from distillkit.settings.parameters import Parameters

_SMALLEST_SECTION = 8192
# A generous number of UTF-8 bytes for a token: 4 is usual for English.
_BYTES_PER_TOKEN = 8
_SMALLEST_BUDGET = 64 << 20
# Compressed, so much prose takes about a gigabyte.
_LARGEST_BUDGET = 2 << 30


def load_documents(
    config: Parameters, console: Console, output_dir: Path | None = None, end_marks: Sequence[str] = ()
) -> DocumentSet:
    """Read the texts that the configuration names.

    Args:
        output_dir: where the run lies, which is no data; None for the configured place.
        end_marks: what ends a document in running text.

    Memory is bounded: of a source with far more text than `sample_size` examples need, an even, repeatable sample is
    kept (local files are read to their end, sets on the Hub as far as needed), and the notes say so.

    Raises:
        UsageError: the source does not exist, or its content cannot be used.
        PreconditionError: it is out of reach: no network, an unknown or closed data set.
    """
    notes = ReadingNotes()
    section_bytes = _section_bytes(config)
    budget = text_budget(config)
    options = ReadingOptions.of(config, end_marks)
    kind = OneKind(options)
    path = local_path(config)
    if path is not None:
        source = find_files(path, notes, output_dir or output_folder(config))
        fingerprint = hash_files(source)
        local = local_texts(config, path, source, kind, notes, console)
        splits = {
            split: bounded_sample(documents, budget, config.seed, split, notes)
            for split, documents in local.documents.items()
        }
        description = local.description
    elif (own := built_in(config)) is not None:
        chat = own == PYTHON_CHAT
        read = python_conversations(console) if chat else python_documents(section_bytes, notes, console)
        documents = list(kind.checked(read))
        fingerprint = {own: interpreter()} | {"text sha256": _text_sha256(documents)}
        splits = {"all": documents}
        what = "questions about the documentation" if chat else "the documentation"
        description = f"{what} of {fingerprint[own]}"
    else:
        from distillkit.data.hub import load_hub_documents

        entry = hub_entry(config)
        description = f"{entry.reference()} on the Hugging Face Hub"
        splits, commit = load_hub_documents(entry, options, budget, section_bytes, config.seed, notes, console)
        splits = {split: list(kind.checked(documents)) for split, documents in splits.items()}
        fingerprint = _entry_fingerprint(entry) | {"commit": commit}
    if not any(splits.values()):
        raise no_text(description, notes)
    row = kind.shown_row()
    if row and notes.told_formats():
        notes.remark(f"read as {notes.told_formats()}")
    return DocumentSet(description, splits, fingerprint, notes.lines(), notes.record() | {"first_conversation": row})


@dataclass(frozen=True)
class LocalTexts:
    """Files of this machine, as they are read.

    Attributes:
        description: what they are, for messages.
        documents: of each split, read while they are asked for.
    """

    description: str
    documents: dict[str, Iterator[Document]]


def local_texts(
    config: Parameters, path: str, source: SourceFiles, kind: OneKind, notes: ReadingNotes, console: Console
) -> LocalTexts:
    """The documents of local files; nothing is read yet.

    Args:
        path: as it was given.
        source: what was found there.
        kind: checks the documents, and has the options that they are read with.
    """
    documents = {
        split: kind.checked(
            folder_documents(
                source, names, options=kind.options, section_bytes=_section_bytes(config), notes=notes, console=console
            )
        )
        for split, names in source.splits.items()
    }
    shown = from_here(path)
    return LocalTexts(f"{shown} ({len(source.files)} files)" if len(source.files) > 1 else shown, documents)


def no_text(description: str, notes: ReadingNotes) -> UsageError:
    """The error of a source that holds nothing to learn from."""
    left_out = "; ".join(notes.lines())
    return UsageError(f"{description}: no text in it ({left_out or 'it is empty or blank'})")


def _section_bytes(config: Parameters) -> int:
    """Longer texts are cut when they are read."""
    return max(_SMALLEST_SECTION, _BYTES_PER_TOKEN * config.max_length)


def source_configs(config: Parameters) -> list[Parameters]:
    """A configuration for each source: those of `mix`, with their share of the examples, or the one data set."""
    if config.mix is None:
        return [config]
    named = mix_sources(config.mix)
    total = sum(map(float, named.values()))

    def share(amount: int, weight: str) -> int:
        return max(1, math.ceil(amount * float(weight) / total))

    return [
        replace(
            config, mix=None, dataset=name, dataset_path=None, sample_size=share(config.sample_size, weight),
            held_out_size=None if config.held_out_size is None else share(config.held_out_size, weight),
        )
        for name, weight in named.items()
    ]  # fmt: skip


def check_source(config: Parameters) -> None:
    """Refuse a source that cannot be right, without reading it and without network.

    Raises:
        UsageError: the path does not exist or holds nothing of a known format, or the name is unknown or malformed.
    """
    for own in source_configs(config):
        path = local_path(own)
        if path is not None:
            find_files(path, ReadingNotes(), output_folder(own))
        elif built_in(own) is None:
            hub_entry(own)


def source_fingerprint(config: Parameters, output_dir: Path | None = None) -> dict[str, str]:
    """What the texts depend on, as far as it can be told without network and without reading more than the files.

    Args:
        output_dir: as for `load_documents`.

    For files, their names and sha256; for the Hub, id, configuration, column and revision as configured; for
    what comes with Python, the interpreter; for a mix all of that, each with its number in the mix.

    Raises:
        UsageError: the path does not exist or holds nothing that can be read.
    """
    if config.mix is not None:
        return {
            f"{number} {key}": value
            for number, own in enumerate(source_configs(config), 1)
            for key, value in source_fingerprint(own, output_dir).items()
        }
    path = local_path(config)
    if path is not None:
        return hash_files(find_files(path, ReadingNotes(), output_dir or output_folder(config)))
    if (own := built_in(config)) is not None:
        return {own: interpreter()}
    return _entry_fingerprint(hub_entry(config))


def output_folder(config: Parameters) -> Path:
    """Where the runs are: never data, even where it lies among them."""
    return Path(os.path.expanduser(config.output_dir))  # noqa: PTH111 - never raises, unlike Path.expanduser


def local_path(config: Parameters) -> str | None:
    """The file or folder that is to be read, None if the source is a named data set or lies on the Hub, or is a mix (see
    `source_configs`)."""
    if config.mix is not None:
        return None
    if config.dataset_path is not None:
        return config.dataset_path
    name = config.dataset
    if name in known_names(config):
        return None
    starts = ("./", "../", "/", "~", ".\\", "..\\", "\\")
    looks_like_path = (
        name in (".", "..") or name.startswith(starts) or Path(name).is_absolute() or file_kind(Path(name)) is not None
    )
    return name if looks_like_path or os.path.exists(name) else None  # noqa: PTH110 - never raises, unlike Path.exists


def hub_entry(config: Parameters) -> DatasetEntry:
    """The Hub data set that `config.dataset` names.

    Raises:
        UsageError: the name is neither the name of a data set nor of the form of a Hub id.
    """
    entry = find_entry(config)
    if entry is None:
        name = config.dataset
        choices = f"known: {', '.join(known_names(config))}; or a path ({', '.join(known_suffixes())}); or a Hub id"
        close = difflib.get_close_matches(name, known_names(config), n=1, cutoff=0.75)
        entry = parse_hub_reference(name)
        if entry is None:
            raise UsageError(f"--dataset '{name}' is neither a data set nor a path nor a Hub id", hint=choices)
        if close and "/" not in name:
            raise UsageError(f"unknown data set '{name}'", hint=f"did you mean '{close[0]}'? {choices}")
        for standard in STANDARD_SETS.values():
            if standard.id == entry.id:
                entry = replace(standard, config=entry.config or standard.config, revision=entry.revision)
    return replace(entry, column=config.text_column) if config.text_column is not None else entry


def text_budget(config: Parameters) -> int:
    """How many bytes of text are kept at most of each split: several times what `sample_size` examples can need, and at least
    what the largest run within the documented ranges takes.

    A power of two, so that a few examples more do not change what is read.
    """
    examples = config.sample_size + 2 * (config.held_out_size or 0)
    need = 4 * examples * config.max_length * _BYTES_PER_TOKEN
    return min(max(_SMALLEST_BUDGET, 1 << (need - 1).bit_length()), _LARGEST_BUDGET)


def _entry_fingerprint(entry: DatasetEntry) -> dict[str, str]:
    fingerprint = {
        "id": entry.id, "config": entry.config or "default", "column": entry.column or "found by itself",
        "revision": entry.revision or "main",
    }  # fmt: skip
    if entry.splits:
        fingerprint["splits"] = ", ".join(f"{ours}={entry.splits[ours]}" for ours in SPLITS if ours in entry.splits)
    if entry.articles:
        fingerprint["articles"] = "yes"
    return fingerprint


def _text_sha256(documents: Iterable[Document]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.text.encode("utf-8"))
        digest.update(b"\0")
    return digest.hexdigest()
