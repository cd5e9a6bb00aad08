"""Texts read from the Hub, kept on this machine: the column that was read, not the files it came from.

Lies beside the Hub's own cache (`$HF_HOME/distillkit`), a folder per data set and commit that is written whole or not
at all and never changed, so that a run without network finds what an earlier one read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillkit.data.bad_rows import BadRow, BadRows
from distillkit.data.conversation import Conversation
from distillkit.data.rows import Row
from distillkit.data.standard_sets import DatasetEntry
from distillkit.settings.parameters import DataFormat
from distillkit.storage import read_json, sha256_of

_FORMAT = 2
# Knew no conversations: where it had to find the column, it took a text beside them without asking.
_TEXTS_ONLY = 1
_DESCRIPTION = "source.json"


@dataclass
class HubTexts:
    """The rows of a data set on the Hub.

    Attributes:
        commit: the commit that they were read from.
        column: the column that they were read from, None where files of plain text were read.
        complete: False where reading stopped because there was enough.
        why: how the column was found, None where it was named.
        layout: as what conversations were read, `Layout.record`; None where texts were read.
        splits: rows by split ("all", or "train", "validation", "test"), bad ones left out.
        bad: the rows without a usable text.
        unused_splits: official splits of names that mean nothing here.
    """

    commit: str
    column: str | None = None
    why: str | None = None
    layout: dict[str, Any] | None = None
    complete: bool = True
    splits: dict[str, list[Row]] = field(default_factory=dict)
    bad: BadRows = field(default_factory=BadRows)
    unused_splits: list[str] = field(default_factory=list)


def cache_folder(entry: DatasetEntry, data_format: DataFormat) -> Path:
    """Where the texts of a data set are kept; another column, format or configuration is another folder."""
    from huggingface_hub import constants

    depends_on: list[Any] = [_TEXTS_ONLY, entry.config, entry.column, sorted((entry.splits or {}).items())]
    if data_format != "auto":
        depends_on.append(data_format)
    digest = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()[:12]
    return Path(constants.HF_HOME) / "distillkit" / "datasets" / f"{entry.id.replace('/', '--')}--{digest}"


def _folder_name(commit: str, budget: int | None) -> str:
    return f"{commit}-{'complete' if budget is None else budget}"


def load_cached(entry: DatasetEntry, data_format: DataFormat, commit: str, budget: int) -> HubTexts | None:
    """What an earlier run read of this commit, if it would be read again just so."""
    folder = cache_folder(entry, data_format)
    whole, enough = (folder / _folder_name(commit, amount) for amount in (None, budget))
    return _read(whole, entry) or _read(enough, entry)


def load_latest_cached(entry: DatasetEntry, data_format: DataFormat) -> HubTexts | None:
    """What was read last of the revision that the entry asks for, for a machine that cannot ask the Hub."""
    try:
        folders = sorted(
            cache_folder(entry, data_format).iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True
        )
    except OSError:
        return None
    for folder in folders:
        description = _describe(folder, entry)
        if description and entry.revision in (description["revision"], description["commit"]):
            texts = _read(folder, entry)
            if texts is not None:
                return texts
    return None


def store(entry: DatasetEntry, data_format: DataFormat, texts: HubTexts, budget: int) -> None:
    """Keep what was read.

    Raises:
        OSError: the disk is full, or the cache cannot be written.
    """
    import pyarrow
    from pyarrow import parquet

    folder = cache_folder(entry, data_format)
    target = folder / _folder_name(texts.commit, None if texts.complete else budget)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        files = {}
        for split, rows in texts.splits.items():
            table = pyarrow.table(
                {
                    "origin": [row.origin for row in rows],
                    "text": pyarrow.array([row.text for row in rows], "large_string"),
                }
            )
            parquet.write_table(table, temporary / f"{split}.parquet", compression="zstd")
            files[split] = sha256_of(temporary / f"{split}.parquet")
        description = {
            "format": _FORMAT, "id": entry.id, "config": entry.config, "revision": entry.revision,
            "commit": texts.commit, "column": texts.column, "why": texts.why, "layout": texts.layout, "complete": texts.complete,
            "nulls": texts.bad.count, "first_bad": texts.bad.first,
            "unused_splits": texts.unused_splits, "files": files,
        }  # fmt: skip
        (temporary / _DESCRIPTION).write_text(json.dumps(description, indent=2), encoding="utf-8")
        # mkdtemp makes folders that only this user can read; a cache may be shared by a group.
        temporary.chmod(folder.stat().st_mode & 0o777)
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _describe(folder: Path, entry: DatasetEntry) -> dict[str, Any] | None:
    try:
        description = read_json(folder / _DESCRIPTION)
    except (OSError, ValueError):
        return None
    if not isinstance(description, dict):
        return None
    known = (_FORMAT,) if entry.column is None else (_TEXTS_ONLY, _FORMAT)
    if description.get("format") not in known:
        return None
    return description


def _read(folder: Path, entry: DatasetEntry) -> HubTexts | None:
    """The texts of a folder; None if it is not there or not whole, in which case they are fetched again."""
    from pyarrow import parquet

    description = _describe(folder, entry)
    if description is None:
        return None
    splits: dict[str, list[Row]] = {}
    for split, digest in description["files"].items():
        path = folder / f"{split}.parquet"
        if not path.is_file() or sha256_of(path) != digest:
            return None
        table = parquet.read_table(path)
        origins: Iterable[str] = table["origin"].to_pylist()
        read = Row if description.get("layout") is None else _conversation_row
        splits[split] = [read(text, origin) for text, origin in zip(table["text"].to_pylist(), origins, strict=True)]
    os.utime(folder)
    return HubTexts(
        commit=description["commit"], column=description["column"], complete=description["complete"], splits=splits,
        why=description.get("why"), layout=description.get("layout"),
        bad=BadRows(description["nulls"], [BadRow(*row) for row in description.get("first_bad", ())]),
        unused_splits=description["unused_splits"],
    )  # fmt: skip


def _conversation_row(text: str, origin: str) -> Row:
    return Row(text, origin, True, Conversation.from_canonical(text))
