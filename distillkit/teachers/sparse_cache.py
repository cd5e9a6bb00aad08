"""The sparse teacher cache on disk: a few ids and probabilities for each row that has a target.

Some 140 bytes a token for SmolLM2-135M with 64 draws, an eighth of its hidden states, and no teacher's head. It belongs to the
temperature, the alignment and the student's tokenizer as well, because ids are the student's and probabilities are
those of the run's temperature; `distillkit.losses.sparse` says what is kept.

    .teacher-cache/<key>/meta.json            what it belongs to
                         shard-00000.bin      safetensors of consecutive texts, see `_NAMES`
                         shard-00000.json     {texts, bytes, sha256, seconds, mapped, rows}, written last
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save
from torch import Tensor

from distillkit.data.examples import ROW_COLUMNS
from distillkit.data.training_rows import Row
from distillkit.run.context import TrainingContext
from distillkit.storage import fingerprint_of
from distillkit.teachers.cache_entries import note_use
from distillkit.teachers.exact_cache import CacheKey
from distillkit.teachers.shards import ShardedCache

FORMAT = 1
TOKENS_PER_SHARD = 8192
# Of a row: where it begins, its place in the text, the mass of all other ids.
_ROW_BYTES = 8 + 4 + 2

# Of a shard: where each text's rows and each row's entries begin, the row in its text, the mass of all other ids, and
# for each entry id and probability.
_NAMES = ("text_starts", "row_starts", "rows", "tails", "ids", "probabilities")


@dataclass(frozen=True)
class SparseKey:
    """What the sparse targets depend on.

    Attributes:
        teacher: the teacher's name, for people.
        facts: everything that the numbers depend on: the teacher's fingerprint and format, texts and rows of both
            sides, the student's token table, temperature, alignment, method, size and seed.
        lengths: student tokens of each text.
    """

    teacher: str
    facts: dict[str, Any]
    lengths: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return fingerprint_of([FORMAT, "sparse", self.facts])[:24]


@dataclass(frozen=True)
class SparseRows:
    """The sparse targets of one text or of several in a row.

    Attributes:
        rows: [R] int64, rows of the text (the row at r predicts token r + 1), ascending in each text.
        counts: [R] int64, entries of each row.
        tails: [R] float32.
        ids: [E] int64; probabilities: [E] float32.
    """

    rows: np.ndarray
    counts: np.ndarray
    tails: np.ndarray
    ids: np.ndarray
    probabilities: np.ndarray

    def padded(self) -> tuple[Tensor, Tensor]:
        """([R, K] ids, [R, K] probabilities), filled up with id 0 of probability 0."""
        width = int(self.counts.max(initial=1))
        there = np.arange(width)[None, :] < self.counts[:, None]
        ids = np.zeros(there.shape, dtype=np.int64)
        probabilities = np.zeros(there.shape, dtype=np.float32)
        ids[there], probabilities[there] = self.ids, self.probabilities
        return torch.from_numpy(ids), torch.from_numpy(probabilities)

    @classmethod
    def joined(cls, parts: Sequence[SparseRows]) -> SparseRows:
        names = ("rows", "counts", "tails", "ids", "probabilities")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def sparse_key(context: TrainingContext, exact: CacheKey, rows: Sequence[Row]) -> SparseKey:
    """What the sparse targets of a run belong to.

    Args:
        exact: of the exact cache of the same texts.
        rows: in the order of their `cache_index`.

    Raises:
        ValueError: the bytes of the student's tokens are not known.
    """
    config, aligned = context.config, context.pairs_rows
    table = context.encoders.student.table
    if table is None:
        raise ValueError("white box needs token bytes")
    columns = ("student_ids", "teacher_ids", *ROW_COLUMNS) if aligned else ("student_ids",)
    digest, lengths = hashlib.sha256(), []
    for row in rows:
        lengths.append(len(row["student_ids"]))
        for name in ("first_target", *columns):
            values = np.atleast_1d(np.asarray(row[name], dtype="<i8"))
            digest.update(len(values).to_bytes(8, "little") + values.tobytes())
        if "target_spans" in row:
            spans = np.asarray(row["target_spans"], dtype="<i8").ravel()
            digest.update(b"spans" + len(spans).to_bytes(8, "little") + spans.tobytes())
    pieces = hashlib.sha256(repr((table.pieces, table.leading_space, sorted(table.shadowed))).encode())
    facts: dict[str, Any] = {
        "fingerprint": exact.fingerprint,
        "dtype": str(exact.dtype).removeprefix("torch."),
        "teacher_texts": exact.texts,
        "rows": digest.hexdigest(),
        "student_tokens": pieces.hexdigest(),
        "temperature": config.temperature,
        "alignment": "bpm" if aligned and config.alignment == "auto" else config.alignment,
        "prefix_map": config.prefix_map if aligned else "",
        "method": config.sparse_method,
        "size": config.sparse_size,
        "seed": config.seed,
    }
    encoders = context.encoders
    around = [(side.start_id, side.end_id) for side in (encoders.student, encoders.teacher)]
    if around[0] != around[1] and not aligned:
        facts["around"] = around
    if encoders.student.parse:
        facts["special_tokens"] = "parse"
    if encoders.student.end_of_turn is not None and aligned:
        facts["end_of_turn"] = [encoders.student.end_of_turn, encoders.teacher.end_of_turn]
    return SparseKey(exact.teacher, facts, tuple(lengths))


def bytes_per_token(size: int, vocabulary: int) -> int:
    """What the sparse targets of a token take at most; a sample with repetitions takes less.

    Args:
        size: ids that are kept, or drawn.
        vocabulary: student tokens, which decides how wide an id is.
    """
    id_bytes = 2 if vocabulary <= 1 << 16 else 4
    return _ROW_BYTES + size * (id_bytes + 2)


def missing_sparse_bytes(root: Path, key: SparseKey, vocabulary: int) -> int:
    """What is still to be written of the sparse targets, at most.

    Args:
        vocabulary: student tokens.
    """
    tokens = sum(shard.tokens for shard in SparseCache(root, key).missing())
    return tokens * bytes_per_token(int(key.facts["size"]), vocabulary)


class SparseCache(ShardedCache):
    """One cache folder of sparse targets.

    Args:
        root: the folder of all caches.
        key: what it belongs to.
    """

    def __init__(self, root: Path, key: SparseKey) -> None:
        super().__init__(root / key.name, key.lengths, TOKENS_PER_SHARD)
        self.key = key
        self._open: dict[int, tuple[Any, np.ndarray, np.ndarray]] = {}

    @property
    def tokens(self) -> int:
        return sum(self.key.lengths)

    @property
    def bytes(self) -> int:
        """Of all shards; they have to be there."""
        return sum(self.files.content(shard).stat().st_size for shard in self.shards)

    def begin(self) -> None:
        """Make the folder and say what it is."""
        self.begin_folder(
            {"format": FORMAT, "kind": "sparse", "teacher": self.key.teacher, "texts": len(self.key.lengths),
             "tokens": self.tokens, **self.key.facts}
        )  # fmt: skip

    def pack(self, texts: Sequence[SparseRows]) -> bytes:
        """The content of a shard: the targets of its texts, in order."""
        whole = SparseRows.joined(texts)
        narrow = len(whole.ids) == 0 or int(whole.ids.max()) <= np.iinfo(np.uint16).max
        values = (
            np.cumsum([0, *(len(text.rows) for text in texts)], dtype=np.int64),
            np.concatenate([[0], np.cumsum(whole.counts)]).astype(np.int64),
            whole.rows.astype(np.int32),
            whole.tails.astype(np.float16),
            whole.ids.astype(np.uint16 if narrow else np.uint32),
            whole.probabilities.astype(np.float16),
        )
        return save(dict(zip(_NAMES, values, strict=True)))

    def open(self) -> None:
        """Map all shards into memory; note that the cache is in use."""
        for shard in self.shards:
            stored = safe_open(self.files.content(shard), framework="np")
            self._open[shard.number] = (stored, stored.get_tensor("text_starts"), stored.get_tensor("row_starts"))
        note_use(self.folder)

    def read(self, text: int) -> SparseRows:
        """The targets of one text."""
        shard = self.shard_of(text)
        stored, text_starts, row_starts = self._open[shard.number]
        first, last = text_starts[text - shard.first : text - shard.first + 2].tolist()
        starts = row_starts[first : last + 1]
        begin, end = int(starts[0]), int(starts[-1])

        def entries(name: str, one: int, other: int) -> np.ndarray:
            # At the very end of a shard safetensors would refuse even an empty slice.
            return stored.get_slice(name)[one:other] if one < other else np.zeros(0)

        return SparseRows(
            entries("rows", first, last).astype(np.int64),
            np.diff(starts),
            entries("tails", first, last).astype(np.float32),
            entries("ids", begin, end).astype(np.int64),
            entries("probabilities", begin, end).astype(np.float32),
        )
