"""Data sets on the Hugging Face Hub -> documents.

Only files are read, never code. Of a Parquet file, the one column with the text is asked for by byte ranges, so that
pictures or sound beside it are not downloaded; of conversations, the columns that make them. Reading stops when there is enough text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from distillkit import registry
from distillkit.console import Console, format_bytes
from distillkit.data import hub_cache
from distillkit.data.arrow_columns import choose_arrow_layout, decoded_rows, first_values, values_of_batches
from distillkit.data.bad_rows import BadRow
from distillkit.data.columns import SAMPLE_ROWS
from distillkit.data.conversation_columns import TEXT
from distillkit.data.conversation_rows import finished_rows
from distillkit.data.document import Document
from distillkit.data.files import standard_split_name
from distillkit.data.formats import DataFile, file_kind, known_suffixes
from distillkit.data.hub_cache import HubTexts
from distillkit.data.hub_errors import explain
from distillkit.data.layouts import Layout
from distillkit.data.notes import ReadingNotes
from distillkit.data.reading_options import ReadingOptions
from distillkit.data.rows import Row, article_documents, row_documents
from distillkit.data.sampling import bounded_sample
from distillkit.data.standard_sets import DatasetEntry
from distillkit.errors import DistillkitError, PreconditionError, UsageError, first_line
from distillkit.hub import TIMEOUT_SECONDS, is_offline, is_unreachable, reason, retry
from distillkit.interrupts import check_interrupted
from distillkit.silence_libraries import silence_datasets

# Plain text comes in pieces of this size from here; they are cut into sections afterwards.
_TEXT_PIECE_BYTES = 1 << 16

_Result = TypeVar("_Result")


def load_hub_documents(
    entry: DatasetEntry,
    options: ReadingOptions,
    budget: int,
    section_bytes: int,
    seed: int,
    notes: ReadingNotes,
    console: Console,
) -> tuple[dict[str, list[Document]], str]:
    """The documents of a Hub data set by split, and the commit that they are from.

    Args:
        options: what the user said of data files; the column that is read is that of `entry`.
        budget: bytes of text after which reading a split stops.
        section_bytes: longer rows are cut.

    Raises:
        PreconditionError: the data set is unknown, closed, or out of reach without a copy on this machine.
        UsageError: the configuration, split or column does not exist.
    """
    with silence_datasets():
        try:
            texts = _load_texts(entry, options, budget, notes, console)
        except DistillkitError:
            raise
        except Exception as error:
            known = explain(error, entry)
            if known is None:
                raise
            raise known from error
    if texts.layout is not None:
        notes.chose_format(entry.id, texts.layout)
    elif texts.column is not None:
        named = "named by --text-column" if options.text_column is not None else f"named for {entry.id}"
        notes.chose_column(entry.id, texts.column, texts.why or named)
    total = sum(map(len, texts.splits.values())) + texts.bad.count
    splits = {split: _usable(rows, texts, options, notes) for split, rows in texts.splits.items()}
    texts.bad.judge(total, options.bad_rows, entry.id, notes)
    if texts.unused_splits:
        notes.remark("splits not used: " + ", ".join(texts.unused_splits))
    if not texts.complete:
        notes.remark(f"more text on the Hub than is needed: about the first {format_bytes(budget)} of a split are used")
    to_documents = article_documents if entry.articles else row_documents
    return {
        split: bounded_sample(to_documents(iter(rows), section_bytes, notes), budget, seed, split, notes)
        for split, rows in splits.items()
    }, texts.commit


def _usable(rows: list[Row], texts: HubTexts, options: ReadingOptions, notes: ReadingNotes) -> list[Row]:
    """The rows as they are learnt from; what cannot be is one more bad row."""
    usable = []
    for row in finished_rows(rows, options, notes):
        if isinstance(row, BadRow):
            texts.bad.add(row, options.bad_rows)
        else:
            usable.append(row)
    return usable


def _load_texts(
    entry: DatasetEntry, options: ReadingOptions, budget: int, notes: ReadingNotes, console: Console
) -> HubTexts:
    """From the Hub, or what is on this machine if the Hub is out of reach."""
    try:
        commit = _retry(lambda: _find_commit(entry), entry, console)
        texts = hub_cache.load_cached(entry, options.data_format, commit, budget)
        if texts is not None:
            console.info(f"{entry.reference()}: the copy on this machine is up to date")
            return texts
        source = _retry(lambda: _resolve(entry, entry.id, commit), entry, console)
        texts = _read_files(entry, options, source, commit, budget, notes, console)
    except Exception as error:
        if isinstance(error, DistillkitError) or not (is_unreachable(error) or is_offline(error)):
            raise
        texts = _load_local_copy(entry, options, budget, notes, console)
        if texts is None:
            raise
        notes.remark(f"{reason(error)}: the copy of {entry.id} on this machine is used (commit {texts.commit[:12]})")
        return texts
    try:
        hub_cache.store(entry, options.data_format, texts, budget)
    except OSError as error:
        # A full disk or a read-only cache costs the next run a download, not this one its texts.
        notes.remark(f"the texts of {entry.id} could not be kept for the next run ({error.strerror or error})")
    return texts


def _retry(action: Callable[[], _Result], entry: DatasetEntry, console: Console) -> _Result:
    return retry(action, entry.id, inform=console.info, check_interrupted=check_interrupted)


def _find_commit(entry: DatasetEntry) -> str:
    from huggingface_hub import HfApi

    commit = HfApi().dataset_info(entry.id, revision=entry.revision, timeout=TIMEOUT_SECONDS).sha
    if not commit:
        raise PreconditionError(f"data set {entry.id}: the Hub names no commit for it")
    return commit


def _resolve(entry: DatasetEntry, source: str, commit: str | None) -> Mapping[str, list[str]]:
    """The data files by split ("hf://…" or local paths) of a repository, or of a local copy of one."""
    from datasets import load_dataset_builder

    builder = load_dataset_builder(source, name=entry.config, revision=commit)
    data_files = builder.config.data_files
    if data_files is None:
        # `datasets` fell back to what it had prepared earlier, because the Hub failed on the way.
        raise ConnectionError(f"{entry.id} could not be looked up on the Hub")
    return {str(split): list(files) for split, files in data_files.items()}


def _choose_splits(available: Iterable[str], entry: DatasetEntry) -> tuple[dict[str, list[str]], list[str]]:
    """Our splits -> theirs, and those of theirs that are not used."""
    names = list(available)
    if entry.splits:
        for theirs in entry.splits.values():
            if theirs not in names:
                raise UsageError(f"data set {entry.id}: no split '{theirs}'; splits: {', '.join(names)}")
        chosen = {ours: [theirs] for ours, theirs in entry.splits.items()}
    else:
        chosen = {}
        for theirs in names:
            ours = standard_split_name(theirs)
            if ours is not None:
                chosen.setdefault(ours, []).append(theirs)
        if "train" not in chosen:
            return {"all": names}, []
    used = {theirs for group in chosen.values() for theirs in group}
    return chosen, [name for name in names if name not in used]


def _read_files(
    entry: DatasetEntry,
    options: ReadingOptions,
    source: Mapping[str, list[str]],
    commit: str,
    budget: int,
    notes: ReadingNotes,
    console: Console,
) -> HubTexts:
    chosen, unused = _choose_splits(source, entry)
    texts = HubTexts(commit, entry.column, unused_splits=unused)
    total = sum(len(source[theirs]) for group in chosen.values() for theirs in group)
    with console.progress(f"reading {entry.reference()}", total=total, unit="files") as progress:
        for ours, group in chosen.items():
            files = [(theirs, file) for theirs in group for file in source[theirs]]
            # Where some of the files are enough, these should not be the ones that happen to come first.
            random.Random(commit).shuffle(files)
            texts.splits[ours], size = [], 0
            for theirs, file in files:
                place = (
                    f"{entry.id}[{theirs}]" if len(source[theirs]) == 1 else f"{entry.id}[{theirs}/{Path(file).name}]"
                )
                rows = _file_rows(file, place, texts, options, notes, entry, console)
                size = _keep_rows(texts, ours, rows, size, budget, options)
                progress.advance(text=format_bytes(size))
    return texts


def _keep_rows(
    texts: HubTexts, split: str, rows: Iterable[Row | BadRow], size: int, budget: int, options: ReadingOptions
) -> int:
    """Add rows to a split that has `size` characters, until it has enough; how many it has then."""
    for row in rows:
        check_interrupted()
        if size > budget:
            texts.complete = False
            break
        if isinstance(row, BadRow):
            texts.bad.add(row, options.bad_rows)
        else:
            texts.splits[split].append(row)
            size += len(row.text)
    return size


def _file_rows(
    file: str,
    place: str,
    texts: HubTexts,
    options: ReadingOptions,
    notes: ReadingNotes,
    entry: DatasetEntry,
    console: Console,
) -> Iterator[Row | BadRow]:
    """The rows of a data file on the Hub or of a local copy."""
    kind = file_kind(Path(file))
    if kind == "parquet" and not file.endswith(".gz"):
        yield from _parquet_rows(file, place, texts, options, entry, console)
        return
    if kind is None:
        raise PreconditionError(
            f"data set {entry.id}: {Path(file).name} is of a format that is not read",
            hint=f"known: {', '.join(known_suffixes())}; convert it and give it with --dataset-path",
        )
    path = Path(_retry(lambda: _download(file), entry, console)) if file.startswith("hf://") else Path(file)
    known = _known_options(texts, options)
    reader = registry.resolve(registry.DATA_FORMATS, f".{kind}")
    for row in reader(DataFile(path, place, known, _TEXT_PIECE_BYTES, notes)):
        found, layout = notes.take_column(place), notes.take_format(place)
        if found is not None and texts.column is None:
            texts.column, texts.why = found["column"], found["why"]
        if layout is not None and texts.layout is None:
            texts.layout = layout
        yield row if isinstance(row, BadRow) else row._replace(ends_text=True)


def _known_options(texts: HubTexts, options: ReadingOptions) -> ReadingOptions:
    """What the user said, and what the first file has shown: all files of a set are read alike."""
    if texts.layout is None:
        return replace(options, text_column=texts.column)
    layout = Layout.of_record(texts.layout)
    return replace(options, data_format=layout.format, text_column=layout.columns.get("turns"))


def _note_layout(texts: HubTexts, layout: Layout) -> None:
    """Of the first file that has one."""
    if layout.format != TEXT:
        texts.layout = texts.layout or layout.record()
    elif texts.column is None:
        texts.column, texts.why = layout.columns["text"], layout.why


def _parquet_rows(
    file: str, place: str, texts: HubTexts, options: ReadingOptions, entry: DatasetEntry, console: Console
) -> Iterator[Row | BadRow]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    with _retry(lambda: _open(file), entry, console) as stream:
        try:
            # Arrow's own threads must not hold the stream, which is a Python object: one of them that lets go of it while
            # the interpreter ends takes the whole process down (SIGABRT after all work is done).
            parquet = _retry(lambda: ParquetFile(stream, pre_buffer=False), entry, console)
            schema = parquet.schema_arrow
            known = _known_options(texts, options)
            layout = _retry(lambda: _find_layout(file, schema, texts, known, place), entry, console)
            _note_layout(texts, layout)
            number = 0
            for group in range(parquet.num_row_groups):
                # A request for each column: its bytes in this group of rows.
                table = _retry(
                    lambda i=group: parquet.read_row_group(i, columns=layout.names, use_threads=False), entry, console
                )
                for batch in table.to_batches():
                    for cells, troubles in decoded_rows({name: batch.column(name) for name in layout.names}):
                        number += 1
                        yield layout.row(cells, f"{place}, row {number:,}", f"{place}:{number}", troubles)
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            raise PreconditionError(f"{place}: not a sound Parquet file ({first_line(error)})") from error


def _find_layout(file: str, schema: Any, texts: HubTexts, known: ReadingOptions, place: str) -> Layout:
    """What the rows of a file are; what has to be seen for that is fetched."""
    if texts.layout is not None:
        layout = Layout.of_record(texts.layout)
        if set(layout.names) <= set(schema.names):
            return layout

    def read_first(names: list[str]) -> dict[str, list[Any]]:
        with _open(file) as stream:
            return first_values(stream, names)

    return choose_arrow_layout(schema, read_first, known, place)


def _open(file: str) -> Any:
    """A local file, or one on the Hub of which exactly those bytes are fetched that are read."""
    from huggingface_hub import HfFileSystem

    if not file.startswith("hf://"):
        return Path(file).open("rb")
    return HfFileSystem().open(file.removeprefix("hf://"), "rb", cache_type="none")


def _download(file: str) -> str:
    """A whole file of the Hub, into the Hub's cache."""
    from huggingface_hub import HfApi

    match = re.fullmatch(r"hf://datasets/([^@]+)@([^/]+)/(.+)", file)
    if match is None:
        raise PreconditionError(f"{file} is not a file of a data set")
    return HfApi().hf_hub_download(match[1], match[3], revision=match[2], repo_type="dataset")


def _load_local_copy(
    entry: DatasetEntry, options: ReadingOptions, budget: int, notes: ReadingNotes, console: Console
) -> HubTexts | None:
    """What this machine has: read earlier by this program, downloaded to the Hub's cache, or prepared by `datasets`."""
    texts = hub_cache.load_latest_cached(entry, options.data_format)
    if texts is not None:
        return texts
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = huggingface_hub.snapshot_download(
            entry.id, repo_type="dataset", revision=entry.revision, local_files_only=True
        )
    except (LocalEntryNotFoundError, OSError, ValueError):
        return _load_prepared(entry, options, budget)
    try:
        source = _resolve(entry, folder, None)
    except (OSError, ValueError):
        # Only some of its files were downloaded.
        return _load_prepared(entry, options, budget)
    return _read_files(entry, options, source, Path(folder).name, budget, notes, console)


def _load_prepared(entry: DatasetEntry, options: ReadingOptions, budget: int) -> HubTexts | None:
    """What `datasets.load_dataset` prepared on this machine, if anything."""
    import datasets.config

    was_offline = datasets.config.HF_HUB_OFFLINE
    # Otherwise it asks the Hub again, with retries of its own that take a minute.
    datasets.config.HF_HUB_OFFLINE = True
    try:
        prepared = datasets.load_dataset(entry.id, entry.config)
    except (OSError, ValueError):
        return None
    finally:
        datasets.config.HF_HUB_OFFLINE = was_offline
    chosen, unused = _choose_splits(map(str, prepared), entry)
    texts = HubTexts("unknown", entry.column, unused_splits=unused)
    for ours, group in chosen.items():
        texts.splits[ours], size = [], 0
        for theirs in group:
            split = prepared[theirs]
            raw = split.with_format("arrow")
            layout = choose_arrow_layout(
                split.features.arrow_schema,
                lambda names, raw=raw: values_of_batches([raw.select_columns(names)[:SAMPLE_ROWS]], names),
                _known_options(texts, options),
                entry.id,
            )
            _note_layout(texts, layout)
            place = f"{entry.id}[{theirs}]"
            columns = {name: split[name] for name in layout.names}
            rows = (
                layout.row(dict(zip(columns, cells, strict=True)), f"{place}, row {number:,}", f"{place}:{number}")
                for number, cells in enumerate(zip(*columns.values(), strict=True), 1)
            )
            size = _keep_rows(texts, ours, rows, size, budget, options)
    return texts
