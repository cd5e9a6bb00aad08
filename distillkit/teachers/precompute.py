"""The teacher pass: run the teacher over all training texts once, and remember it.

The cached teacher then stands in for the model in the losses: it reads hidden states from disk and applies the head.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from distillkit.console import Console
from distillkit.data.batching import HostColumns, attention_mask, pad_right
from distillkit.device.buffers import Buffers, linear_rows
from distillkit.errors import DistillkitError
from distillkit.evaluation.length_batches import batches_by_length
from distillkit.interrupts import check_interrupted
from distillkit.processes.taking_part import Share, unshared
from distillkit.storage import read_json, sha256_of, write_bytes, write_json
from distillkit.teachers.exact_cache import TeacherCache, known_width
from distillkit.teachers.live import LiveTeacher
from distillkit.teachers.shards import Shard, report_damage

_HEAD, _HEAD_RECORD = "head.safetensors", "head.json"
_BATCH_TOKENS = 2048  # Enough for full speed of a matrix product, little enough memory.


@dataclass
class PassFigures:
    """The teacher pass that made a cache, whichever runs and attempts did it.

    Attributes:
        tokens, seconds: of all shards.
        cached_tokens: those that were there already.
        cache_bytes: of all shards.
    """

    tokens: int
    seconds: float
    cached_tokens: int
    cache_bytes: int


def as_metrics(figures: PassFigures) -> dict[str, Any]:
    """For metrics.json."""
    return {
        "tokens": figures.tokens,
        "seconds": round(figures.seconds, 3),
        "tokens_per_second": round(figures.tokens / max(figures.seconds, 1e-9), 2),
        "cached_tokens": figures.cached_tokens,
        "cache_bytes": figures.cache_bytes,
    }


class CachedTeacher:
    """Hidden states from a cache and the head: a teacher without its blocks.

    Args:
        cache: complete.
        device: where the head is applied.

    Raises:
        DistillkitError: the cache is one of a quantised teacher whose states an earlier version wrote in another format than
            it names.
    """

    def __init__(self, cache: TeacherCache, device: torch.device) -> None:
        tensors = load_file(cache.folder / _HEAD)
        if tensors["weight"].dtype != cache.key.dtype:
            raise DistillkitError(
                f"an earlier version wrote the teacher cache {cache.folder} in a wrong format",
                hint=f"rm -r {shlex.quote(str(cache.folder))}",
            )
        cache.open()
        self.cache = cache
        self.device = device
        self.weight, bias = tensors["weight"].to(device), tensors.get("bias")
        self.bias = None if bias is None else bias.to(device)
        self._buffers = Buffers()

    def hidden(self, batch: Mapping[str, Any]) -> Tensor:
        """[B·T_t, D_t] last hidden states; zeros at padding, which nobody reads."""
        host: HostColumns = batch["host"]
        width = batch["teacher_input_ids"].shape[1]
        hidden = torch.zeros(len(host.cache_index), width, self.cache.width, dtype=self.cache.key.dtype)
        for index, (text, length) in enumerate(zip(host.cache_index, host.teacher_lengths, strict=True)):
            hidden[index, :length] = self.cache.read(text)
        return hidden.flatten(0, 1).to(self.device)

    def head(self, hidden_nD: Tensor) -> Tensor:
        """[n, D_t] -> [n, U] logits, without a graph, in the teacher's own format; the next call may overwrite them."""
        with torch.no_grad(), torch.autocast(hidden_nD.device.type, enabled=False):
            return linear_rows(self._buffers, "logits", hidden_nD, self.weight, self.bias)


def head_is_whole(cache: TeacherCache) -> bool:
    """Whether head and description lie beside the hidden states as they were written."""
    if known_width(cache.folder) != cache.width:
        return False
    try:
        noted = read_json(cache.folder / _HEAD_RECORD)
        return noted["sha256"] == sha256_of(cache.folder / _HEAD)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def fill_cache(
    cache: TeacherCache,
    token_ids: Sequence[Sequence[int]],
    load_teacher: Callable[[], LiveTeacher],
    console: Console,
    share: Share = unshared,
) -> PassFigures:
    """Compute what the cache lacks; shards that are whole are kept, so an interrupted pass resumes where it was.

    The teacher is loaded only if something is missing, and forgotten on return.

    Args:
        share: the missing shards are divided among the processes that it brings together (`fill_shards` in the others).

    Raises:
        Interrupted: a signal arrived; finished shards stay.
        DistillkitError: the disk is full.
    """
    cache.folder.parent.mkdir(parents=True, exist_ok=True)
    with cache.locked():
        missing = cache.missing()
        if not missing and head_is_whole(cache):
            return PassFigures(cache.key.tokens, cache.seconds(), cache.key.tokens, cache.bytes)
        report_damage(cache.files, missing, console)
        cache.begin()
        tokens = sum(shard.tokens for shard in missing)
        with share([shard.number for shard in missing]) as group:
            teacher = load_teacher()
            write_head(cache.folder, teacher.head_layer)
            fill_shards(cache, group.part(missing), token_ids, teacher, console)
            group.meet()
        return PassFigures(cache.key.tokens, cache.seconds(), cache.key.tokens - tokens, cache.bytes)


def fill_shards(
    cache: TeacherCache,
    shards: Sequence[Shard],
    token_ids: Sequence[Sequence[int]],
    teacher: LiveTeacher,
    console: Console,
) -> None:
    """Compute some shards of a cache that has been begun. What is in one does not depend on the others.

    Raises:
        Interrupted: a signal arrived; finished shards stay.
        DistillkitError: the disk is full.
    """
    with console.progress("teacher pass", total=sum(shard.tokens for shard in shards), unit="tokens") as progress:
        for shard in shards:
            began = time.monotonic()
            states = _shard_states(shard, cache.key.lengths, token_ids, teacher, lambda count: progress.advance(count))
            cache.write(shard, states, time.monotonic() - began)


def _shard_states(
    shard: Shard,
    lengths: Sequence[int],
    token_ids: Sequence[Sequence[int]],
    teacher: LiveTeacher,
    advance: Callable[[int], None],
) -> Tensor:
    """[tokens, D] of a shard's texts in their order; batches of like lengths, always the same ones."""
    states: dict[int, Tensor] = {}
    for batch in shard_batches(shard, lengths):
        check_interrupted()
        ids, mask = padded(batch, token_ids, teacher.device)
        hidden = teacher.hidden_states(ids, mask).view(*ids.shape, -1)
        for position, index in enumerate(batch):
            states[index] = hidden[position, : lengths[index]].cpu()
        advance(sum(lengths[index] for index in batch))
    return torch.cat([states[index] for index in range(shard.first, shard.last)])


def shard_batches(shard: Shard, lengths: Sequence[int]) -> list[list[int]]:
    """The texts of a shard in batches of like lengths, always the same ones.

    Args:
        lengths: tokens of every text.
    """
    return batches_by_length(lengths[shard.first : shard.last], _BATCH_TOKENS, first=shard.first)


def padded(batch: Sequence[int], token_ids: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """([B, T] ids, [B, T] attention mask) of some texts."""
    rows = [token_ids[index] for index in batch]
    ids = pad_right(rows, 0)
    return ids.to(device), attention_mask(rows, ids.shape[1]).to(device)


def write_head(folder: Path, layer: nn.Linear | None) -> None:
    """Put the teacher's head beside its hidden states.

    Raises:
        ValueError: the teacher's head is no linear layer.
    """
    path = folder / _HEAD
    if not isinstance(layer, nn.Linear):
        raise ValueError("only a teacher that can be taken apart can be cached")
    tensors = {"weight": layer.weight.detach().cpu().contiguous()}
    if layer.bias is not None:
        tensors["bias"] = layer.bias.detach().cpu().contiguous()
    data = save(tensors)
    path.with_name(_HEAD_RECORD).unlink(missing_ok=True)
    write_bytes(path, data)
    write_json(path.with_name(_HEAD_RECORD), {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
