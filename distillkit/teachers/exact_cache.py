"""The teacher cache on disk: the teacher's last hidden states for every training text, computed once.

Hidden states take 2·D bytes a token in bf16, a thirtieth of the logits, and with the head beside them they are the
teacher, exactly: every temperature, divergence and alignment can be computed from them. A cache belongs to a teacher, a
format and the very texts; runs in one output directory share it.

    .teacher-cache/<key>/meta.json            what it belongs to
                         head.safetensors     the teacher's head, and head.json: {bytes, sha256}
                         shard-00000.bin      hidden states of consecutive texts, [tokens, D], row by row
                         shard-00000.json     {texts, bytes, sha256, seconds}, written last: without it the shard does not count
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distillkit.errors import DistillkitError
from distillkit.storage import (
    fingerprint_of,
    read_json,
    with_checksum,
    without_checksum,
)
from distillkit.teachers.cache_entries import note_use
from distillkit.teachers.shards import Shard, ShardedCache

FORMAT = 1
_SHARD_BYTES = 1 << 24  # What a crash can cost: about a minute of the default teacher on a weak processor.
_INTEGERS = {torch.bfloat16: np.int16, torch.float16: np.int16, torch.float32: np.int32}


@dataclass(frozen=True)
class CacheKey:
    """What the hidden states depend on.

    Attributes:
        teacher: the teacher's name, for people.
        fingerprint: of its weights and tokenizer.
        dtype: the format that it computes in.
        texts: digest of the token ids that it reads, in order.
        lengths: tokens of each text.
    """

    teacher: str
    fingerprint: str
    dtype: torch.dtype
    texts: str
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, teacher: str, fingerprint: str, dtype: torch.dtype, token_ids: Sequence[Sequence[int]]) -> CacheKey:
        digest, lengths = hashlib.sha256(), []
        for ids in token_ids:  # Once: they may have to be read from the disk.
            digest.update(np.asarray([len(ids), *ids], dtype="<i8").tobytes())
            lengths.append(len(ids))
        return cls(teacher, fingerprint, dtype, digest.hexdigest(), tuple(lengths))

    @property
    def name(self) -> str:
        """The name of the folder."""
        return fingerprint_of([FORMAT, self.fingerprint, str(self.dtype), self.texts])[:24]

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


class TeacherCache(ShardedCache):
    """One cache folder of hidden states.

    Args:
        root: the folder of all caches.
        key: what it belongs to.
        width: D, numbers per token.
    """

    def __init__(self, root: Path, key: CacheKey, width: int) -> None:
        super().__init__(root / key.name, key.lengths, _SHARD_BYTES // (width * key.dtype.itemsize))
        self.key = key
        self.width = width
        self._starts = np.concatenate([[0], np.cumsum(key.lengths)])
        self._open: dict[int, np.ndarray] = {}

    @property
    def bytes(self) -> int:
        """Of all hidden states."""
        return self.key.tokens * self.width * self.key.dtype.itemsize

    def begin(self) -> None:
        """Make the folder and say what it is."""
        content = {
            "format": FORMAT, "kind": "exact", "teacher": self.key.teacher, "fingerprint": self.key.fingerprint,
            "dtype": str(self.key.dtype).removeprefix("torch."), "texts": len(self.key.lengths),
            "texts_sha256": self.key.texts, "tokens": self.key.tokens, "width": self.width,
        }  # fmt: skip
        self.begin_folder(with_checksum(content))

    # --- writing ---

    def write(self, shard: Shard, hidden_ND: Tensor, seconds: float) -> None:
        """Store a shard.

        Args:
            hidden_ND: [shard.tokens, D], stored in the key's format.
            seconds: what it took to compute.

        Raises:
            DistillkitError: they are not numbers, and must not be remembered; or they cannot be written.
        """
        if not bool(torch.isfinite(hidden_ND).all()):
            raise not_numbers("hidden states", shard.first, shard.last)
        data = hidden_ND.to(self.key.dtype).cpu().contiguous().view(torch.uint8).numpy().tobytes()
        self.files.write(shard, data, seconds=round(seconds, 3))

    def seconds(self) -> float:
        """What the teacher pass took, in this run or the earlier ones that computed the shards."""
        return self.files.total("seconds")

    # --- reading ---

    def open(self) -> None:
        """Map all shards into memory, so that pruning does not disturb who reads; note that the cache is in use."""
        kind = np.dtype(_INTEGERS[self.key.dtype])
        for shard in self.shards:
            path = self.files.content(shard)
            self._open[shard.number] = np.memmap(path, dtype=kind, mode="r", shape=(shard.tokens, self.width))
        note_use(self.folder)

    def read(self, text: int) -> Tensor:
        """[tokens, D] of one text, a copy."""
        shard = self.shard_of(text)
        begin = int(self._starts[text] - self._starts[shard.first])
        rows = np.array(self._open[shard.number][begin : begin + self.key.lengths[text]])
        return torch.from_numpy(rows).view(self.key.dtype)


def not_numbers(what: str, first: int, last: int) -> DistillkitError:
    """What is wrong where the teacher gives NaN or infinity for training texts [first, last)."""
    return DistillkitError(
        f"the teacher's {what} are not numbers (NaN or infinity) for training texts {first} to {last - 1}",
        hint="use --precision fp32; if that does not help, its weights are damaged: get the model again",
    )


def known_width(folder: Path) -> int | None:
    """The numbers per token of a cache that was begun earlier; None where there is none, or its description is damaged."""
    try:
        return int(without_checksum(read_json(folder / "meta.json"))["width"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
