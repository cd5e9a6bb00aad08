"""The teacher pass of a teacher larger than memory: block by block over all texts.

The weights of a block are read once for all texts. What comes out of it, for all texts, lies in a file beside the cache
and goes through the next block; memory holds a block and the hidden states of one batch. Batches and modules are those of
the ordinary pass, so the numbers are the same.

    .teacher-cache/<key>/activations-0.bin    what came out of the blocks with even numbers, batch after batch
                         activations-1.bin    ... odd numbers; one is read while the other is written
                         streaming.json       how far it is, and a digest of every batch

All three are gone once the shards of the cache are written. A batch counts only with its digest in streaming.json, which
is written after the batch is on the disk, so a pass that was cut off anywhere resumes from there.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit.console import Console
from distillkit.durability import sync_file
from distillkit.errors import Interrupted
from distillkit.interrupts import check_interrupted
from distillkit.storage import explained_write_errors, write_json
from distillkit.teachers.blocks import BlockwiseTeacher
from distillkit.teachers.exact_cache import TeacherCache
from distillkit.teachers.precompute import PassFigures, head_is_whole, padded, shard_batches, write_head
from distillkit.teachers.shards import Shard, report_damage

_FORMAT = 1
_RECORD = "streaming.json"
_FILES = ("activations-0.bin", "activations-1.bin")
_COMMIT_SECONDS = 10.0  # What a crash can cost.


class _DamagedError(Exception):
    """The file of activations is not what was written."""


@dataclass
class _Record:
    """How far a pass is.

    Attributes:
        shards: that it is for.
        block: that is being computed; equal to the number of blocks: only the shards are left to be written.
        before: digests of the batches that came out of the block before.
        done: digests of those that came out of this one so far.
        seconds: spent up to here.
    """

    shards: list[int]
    block: int = 0
    before: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    seconds: float = 0.0


def activation_bytes(shards: Sequence[Shard], lengths: Sequence[int], width: int, itemsize: int) -> int:
    """What the files take on the disk at most: two times the hidden states of all texts, with their padding."""
    tokens = sum(len(batch) * lengths[batch[0]] for shard in shards for batch in shard_batches(shard, lengths))
    return 2 * tokens * width * itemsize


def remove_activations(folder: Path) -> None:
    """Delete what a pass that was cut off has left in a cache."""
    for name in (_RECORD, *_FILES):
        with explained_write_errors(folder / name):
            (folder / name).unlink(missing_ok=True)


def activations_left(folder: Path) -> int:
    """What lies on the disk of a pass that was cut off."""
    return sum(path.stat().st_size for name in _FILES if (path := folder / name).is_file())


def fill_cache_blockwise(
    cache: TeacherCache,
    token_ids: Sequence[Sequence[int]],
    open_teacher: Callable[[], BlockwiseTeacher],
    console: Console,
) -> PassFigures:
    """Compute what the cache lacks, as `fill_cache` does, with one block of the teacher in memory.

    Raises:
        Interrupted: a signal arrived; what is computed stays.
        DistillkitError: the disk is full.
    """
    with explained_write_errors(cache.folder.parent):
        cache.folder.parent.mkdir(parents=True, exist_ok=True)
    with cache.locked():
        missing = cache.missing()
        if not missing and head_is_whole(cache):
            remove_activations(cache.folder)
            return PassFigures(cache.key.tokens, cache.seconds(), cache.key.tokens, cache.bytes)
        cache.begin()
        teacher = open_teacher()
        write_head(cache.folder, teacher.head_layer())
        teacher.forget_head()
        report_damage(cache.files, missing, console)
        tokens = sum(shard.tokens for shard in missing)
        while missing:
            try:
                _Pass(cache, token_ids, teacher, missing, console).run()
                break
            except _DamagedError as error:
                console.warn(f"{error}: the teacher pass begins again")
                remove_activations(cache.folder)
        remove_activations(cache.folder)
        return PassFigures(cache.key.tokens, cache.seconds(), cache.key.tokens - tokens, cache.bytes)


class _Pass:
    """One pass over the texts of the shards that are missing, or the rest of one."""

    def __init__(
        self,
        cache: TeacherCache,
        token_ids: Sequence[Sequence[int]],
        teacher: BlockwiseTeacher,
        missing: Sequence[Shard],
        console: Console,
    ) -> None:
        self.cache, self.token_ids, self.teacher, self.missing, self.console = (
            cache, token_ids, teacher, missing, console,
        )  # fmt: skip
        self.record = _read_record(cache.folder, missing, len(cache.shards), len(teacher.blocks))
        shards = [cache.shards[number] for number in self.record.shards]
        batches = [(shard.number, batch) for shard in shards for batch in shard_batches(shard, cache.key.lengths)]
        self.shard_of = [number for number, _ in batches]
        self.batches = [batch for _, batch in batches]
        self.shapes = [(len(batch), cache.key.lengths[batch[0]]) for batch in self.batches]
        self.starts = [0, *itertools.accumulate(rows * length for rows, length in self.shapes)]
        self.tokens = [sum(cache.key.lengths[text] for text in batch) for batch in self.batches]
        self.began = time.monotonic() - self.record.seconds
        if len(self.record.done) > len(batches) or len(self.record.before) != (
            len(batches) if self.record.block else 0
        ):
            raise _DamagedError(f"{cache.folder / _RECORD} is damaged")

    def run(self) -> None:
        record, count, total = self.record, len(self.teacher.blocks), sum(self.tokens)
        completed = record.block + sum(self.tokens[: len(record.done)]) / total
        with self.console.progress(
            "teacher pass, block by block", count, unit="blocks", completed=completed
        ) as progress:
            # A later block needs no embeddings, only what came out of the block before.
            if record.block < count:
                self.teacher.load_frame(embedding=record.block == 0)
            try:
                while record.block < count:
                    self._block(record.block, lambda batch: progress.advance(self.tokens[batch] / total))
                    record.block, record.before, record.done = record.block + 1, record.done, []
                    self._commit()
            except Interrupted:
                if record.done:
                    self._commit()
                raise
        self._write_shards()

    def _block(self, block: int, advance: Callable[[int], None]) -> None:
        """All batches through one block."""
        self.teacher.load_block(block)
        width = self._width(block)
        target = self.cache.folder / _FILES[block % 2]
        if not target.exists():
            self.record.done = []
        with explained_write_errors(target), target.open("r+b" if self.record.done else "wb") as stream:
            stream.seek(self.starts[len(self.record.done)] * self._bytes(width))
            committed = time.monotonic()
            for index in range(len(self.record.done), len(self.batches)):
                check_interrupted()
                hidden = self._read(block - 1, index).to(self.teacher.device) if block else None
                ids, mask = padded(self.batches[index], self.token_ids, self.teacher.device)
                data = _raw(self.teacher.run(block, ids, mask, hidden).cpu())
                stream.write(data)
                self.record.done.append(_digest(data))
                if time.monotonic() - committed > _COMMIT_SECONDS:
                    stream.flush()
                    self._commit()
                    committed = time.monotonic()
                advance(index)
        self.teacher.forget_block(block)
        if block == 0:
            self.teacher.forget_embedding()

    def _write_shards(self) -> None:
        last, each = len(self.teacher.blocks) - 1, self._seconds() / sum(self.tokens)
        wanted = {shard.number for shard in self.missing}
        for number in sorted(wanted):
            check_interrupted()
            shard, states = self.cache.shards[number], {}
            for index in [index for index, of in enumerate(self.shard_of) if of == number]:
                hidden = self._read(last, index)
                for position, text in enumerate(self.batches[index]):
                    states[text] = hidden[position, : self.cache.key.lengths[text]]
            whole = torch.cat([states[text] for text in range(shard.first, shard.last)])
            self.cache.write(shard, whole, each * shard.tokens)

    def _width(self, block: int) -> int:
        return self.teacher.width if block == len(self.teacher.blocks) - 1 else self.teacher.inner_width

    def _bytes(self, width: int) -> int:
        return width * self.cache.key.dtype.itemsize

    def _read(self, block: int, index: int) -> Tensor:
        """[B, T, width], what came out of a block for a batch."""
        width, path = self._width(block), self.cache.folder / _FILES[block % 2]
        rows, length = self.shapes[index]
        hidden = torch.empty(rows, length, width, dtype=self.cache.key.dtype)
        try:
            with path.open("rb") as stream:
                stream.seek(self.starts[index] * self._bytes(width))
                stream.readinto(_raw(hidden))
        except OSError as error:
            raise _DamagedError(f"{path} cannot be read ({error.strerror})") from error
        if _digest(_raw(hidden)) != self.record.before[index]:
            raise _DamagedError(f"{path} is damaged")
        return hidden

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _commit(self) -> None:
        """First the batches on the disk, then the record that makes them count."""
        record, folder = self.record, self.cache.folder
        path = folder / _FILES[(record.block if record.done else record.block - 1) % 2]
        with explained_write_errors(path), path.open("r+b") as stream:
            sync_file(stream.fileno(), path)
        record.seconds = round(self._seconds(), 3)
        write_json(folder / _RECORD, {"format": _FORMAT, **asdict(record)})


def _read_record(folder: Path, missing: Sequence[Shard], shards: int, blocks: int) -> _Record:
    """Where the pass resumes; at its beginning if there is nothing that can be trusted."""
    fresh = _Record([shard.number for shard in missing])
    try:
        content: dict[str, Any] = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        if content.pop("format") != _FORMAT:
            return fresh
        record = _Record(**content)
        usable = set(fresh.shards) <= set(record.shards) <= set(range(shards)) and 0 <= record.block <= blocks
        digests = all(isinstance(digest, str) for digest in (*record.before, *record.done))
        return record if usable and digests and record.seconds >= 0 else fresh
    except (OSError, ValueError, KeyError, TypeError):
        return fresh


def _raw(values: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, not a copy."""
    return memoryview(values.contiguous().flatten().view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]


def _digest(data: memoryview) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
