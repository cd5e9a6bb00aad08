"""Files of a cache in parts, each of which counts only with the record of its digest: torn, truncated or altered parts
are computed again, never trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distillkit.console import Console
from distillkit.locks import Lock
from distillkit.storage import (
    explained_write_errors,
    make_folder,
    read_json,
    remove_leftovers,
    sha256_of,
    with_checksum,
    without_checksum,
    write_bytes,
    write_json,
)
from distillkit.teachers.cache_entries import lock_of


@dataclass(frozen=True)
class Shard:
    """Consecutive texts in one file.

    Attributes:
        number: of the shard.
        first, last: the texts in it, [first, last).
        tokens: in these texts.
    """

    number: int
    first: int
    last: int
    tokens: int


def plan_shards(lengths: Sequence[int], tokens_each: int) -> list[Shard]:
    """Consecutive texts, as many in a shard as have `tokens_each` tokens together, at least one."""
    shards: list[Shard] = []
    first, tokens = 0, 0
    for index, length in enumerate(lengths):
        if tokens and tokens + length > tokens_each:
            shards.append(Shard(len(shards), first, index, tokens))
            first, tokens = index, 0
        tokens += length
    if tokens:
        shards.append(Shard(len(shards), first, len(lengths), tokens))
    return shards


@dataclass(frozen=True)
class ShardFiles:
    """The shards of a cache folder."""

    folder: Path
    shards: Sequence[Shard]

    def content(self, shard: Shard) -> Path:
        return self.folder / f"shard-{shard.number:05d}.bin"

    def record_path(self, shard: Shard) -> Path:
        return self.folder / f"shard-{shard.number:05d}.json"

    def record(self, shard: Shard) -> dict[str, Any]:
        """What was noted with a shard.

        Raises:
            OSError, ValueError: it is missing or damaged.
        """
        return without_checksum(read_json(self.record_path(shard)))

    def missing(self) -> list[Shard]:
        """The shards that are not there or not what was written."""
        return [shard for shard in self.shards if not self._is_whole(shard)]

    def _is_whole(self, shard: Shard) -> bool:
        content = self.content(shard)
        try:
            noted = self.record(shard)
            same_texts = noted["texts"] == [shard.first, shard.last]
            return same_texts and noted["bytes"] == content.stat().st_size and noted["sha256"] == sha256_of(content)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write(self, shard: Shard, data: bytes, **facts: Any) -> None:
        """Store a shard: content first, then the record that makes it count."""
        with explained_write_errors(self.record_path(shard)):
            self.record_path(shard).unlink(missing_ok=True)
        write_bytes(self.content(shard), data)
        own = {"texts": [shard.first, shard.last], "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        write_json(self.record_path(shard), with_checksum({**own, **facts}))

    def total(self, name: str) -> float:
        """The sum of a fact over all shards; those of shards that were written without it count as 0."""
        return sum(float(self.record(shard).get(name, 0.0)) for shard in self.shards)


class ShardedCache:
    """One cache folder: consecutive texts in shards, and meta.json, which says what it belongs to.

    Args:
        folder: of this cache.
        lengths: tokens of each text.
        shard_tokens: of a shard, at least one text.
    """

    def __init__(self, folder: Path, lengths: Sequence[int], shard_tokens: int) -> None:
        self.folder = folder
        self.shards = plan_shards(lengths, shard_tokens)
        self.files = ShardFiles(folder, self.shards)
        self._shard_of = np.searchsorted([shard.last for shard in self.shards], np.arange(len(lengths)), side="right")

    def shard_of(self, text: int) -> Shard:
        """The shard in which a text lies."""
        return self.shards[int(self._shard_of[text])]

    def missing(self) -> list[Shard]:
        """The shards that are not there or not what was written: torn, truncated, altered."""
        return self.files.missing()

    def locked(self) -> Lock:
        """The lock of those who write; wait for it with `acquire`."""
        return lock_of(self.folder)

    def begin_folder(self, description: Mapping[str, Any]) -> None:
        """Make the folder, delete what an earlier attempt left half written, and write meta.json.

        Raises:
            DistillkitError: the disk is full.
        """
        make_folder(self.folder)
        remove_leftovers(self.folder)
        write_json(self.folder / "meta.json", dict(description))


def report_damage(files: ShardFiles, missing: Sequence[Shard], console: Console) -> None:
    """Warn where some of the `missing` shards had been finished and are not what was written."""
    names = [files.content(shard).name for shard in missing if files.record_path(shard).exists()]
    if names:
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
        console.warn(f"teacher cache {files.folder.name}: {listed} damaged, computed again")
