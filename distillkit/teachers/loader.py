"""The teacher of a white-box run in whichever way it is had: whole, block by block, or as its exact cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distillkit.console import Console, format_bytes
from distillkit.device.int8 import quantise_layers
from distillkit.device.malloc import trim_heap
from distillkit.device.precision import Compute
from distillkit.errors import DistillkitError
from distillkit.models.pruning import decoder_blocks
from distillkit.run.pair import ModelPair
from distillkit.settings.parameters import Parameters
from distillkit.storage import fingerprint_of, make_folder, remove_tree, write_json
from distillkit.teachers.blocks import BlockwiseTeacher, Streaming, blocks_width, choose_streaming
from distillkit.teachers.cache_entries import FOLDER
from distillkit.teachers.exact_cache import CacheKey, TeacherCache, free_space, known_width
from distillkit.teachers.live import LiveTeacher
from distillkit.teachers.precompute import CachedTeacher, PassFigures, fill_cache, head_is_whole
from distillkit.teachers.protocol import Teacher
from distillkit.teachers.streaming import activation_bytes, activations_left, fill_cache_blockwise

# What else the run writes besides the cache, at least.
RESERVE_BYTES = 1 << 30
# Marks an exact cache that nobody asked for: sparse targets are made from it, then it goes.
_TEMPORARY = "temporary.json"


class TeacherLoader:
    """Loads the teacher at most once, and knows its exact cache for these texts.

    Args:
        output_dir: caches lie below it.
        token_ids: what the teacher reads, text by text.

    Attributes:
        streamed_seconds: what `states` took to run the teacher block by block.
    """

    def __init__(
        self,
        config: Parameters,
        output_dir: Path,
        pair: ModelPair,
        compute: Compute,
        token_ids: Sequence[Sequence[int]],
        console: Console,
    ) -> None:
        self.root = output_dir / FOLDER
        self.config, self.pair, self.compute, self.token_ids, self.console = config, pair, compute, token_ids, console
        self.int8 = config.teacher_precision == "int8"
        fingerprint = pair.teacher.fingerprint()
        if self.int8:
            fingerprint = fingerprint_of([fingerprint, "int8"])
        self.key = CacheKey.of(pair.teacher.reference.text, fingerprint, compute.teacher, token_ids)
        self.width = known_width(self.root / self.key.name)
        self._loaded: LiveTeacher | None = None
        self._streaming: Streaming | None = None
        self.streamed_seconds = 0.0

    @property
    def streaming(self) -> Streaming:
        """Whether the teacher runs block by block; decided once, before anything large is in memory."""
        if self._streaming is None:
            self._streaming = choose_streaming(self.config, self.pair.teacher, self.compute)
        return self._streaming

    def load(self) -> LiveTeacher:
        """The whole teacher."""
        if self._loaded is None:
            model = self.pair.load_teacher(self.compute.teacher, self.console)
            if self.int8:
                quantise_layers(decoder_blocks(model)[2])
            self._loaded = LiveTeacher(model, self.compute)
        return self._loaded

    def forget(self) -> None:
        self._loaded = None
        trim_heap()

    def exact_cache(self) -> TeacherCache | None:
        """The cache of hidden states, begun or not; None if the teacher's head is more than a linear layer."""
        if self.width is None and self.streaming.on:
            self.width = self._blocks().width
        elif self.width is None:
            layer = self.load().head_layer
            self.width = None if layer is None else layer.in_features
        return None if self.width is None else TeacherCache(self.root, self.key, self.width)

    def fill(self, cache: TeacherCache) -> PassFigures:
        """Complete the cache of hidden states, with the whole teacher or block by block."""
        (cache.folder / _TEMPORARY).unlink(missing_ok=True)
        return self._fill(cache)

    def _fill(self, cache: TeacherCache) -> PassFigures:
        if cache.missing() and self.streaming.on:
            self.console.info(f"the teacher runs block by block: {self.streaming.why}")
            return fill_cache_blockwise(cache, self.token_ids, self._blocks, self.console)
        return fill_cache(cache, self.token_ids, self.load, self.console)

    def _blocks(self) -> BlockwiseTeacher:
        prepare = quantise_layers if self.int8 else None
        return BlockwiseTeacher(self.pair.teacher, self.compute.teacher, self.compute.device, prepare)

    def disk_problem(self, cache: TeacherCache) -> str | None:
        """Why the cache cannot be completed on this disk; None if it can."""
        missing = cache.missing()
        needed = sum(shard.tokens for shard in missing) * cache.width * cache.key.dtype.itemsize
        free = free_space(self.root)
        if missing and self.streaming.on:
            widest = max(cache.width, blocks_width(self.pair.teacher))
            needed = activation_bytes(missing, cache.key.lengths, widest, cache.key.dtype.itemsize)
            free += activations_left(cache.folder)  # Of an interrupted pass: used again.
        if needed == 0 or needed + RESERVE_BYTES <= free:
            return None
        return f"its cache takes {format_bytes(needed)}, {format_bytes(free)} are free in {self.root.parent}"

    def states(self) -> Teacher:
        """From the exact cache if that is complete, else the model; block by block, from an exact cache made for it."""
        if (cache := self._finished_cache()) is not None:
            self.console.info("the teacher has read these texts before: its exact cache is used")
            return CachedTeacher(cache, self.compute.device)
        if not self.streaming.on or (cache := self.exact_cache()) is None:
            return self.load()
        problem = self.disk_problem(cache)
        if problem is not None:
            raise DistillkitError(f"the teacher cannot run block by block: {problem}", hint="free some space")
        if not cache.folder.exists():
            make_folder(cache.folder)
            write_json(cache.folder / _TEMPORARY, {"for": "sparse targets"})
        self.streamed_seconds = self._fill(cache).seconds
        return CachedTeacher(cache, self.compute.device)

    def drop_temporary(self) -> None:
        """Delete the exact cache if it was only made to get sparse targets from it."""
        if self.width is not None:
            cache = TeacherCache(self.root, self.key, self.width)
            if (cache.folder / _TEMPORARY).is_file():
                with cache.locked():
                    remove_tree(cache.folder)

    def _finished_cache(self) -> TeacherCache | None:
        if self.width is None:
            return None
        cache = TeacherCache(self.root, self.key, self.width)
        return cache if not cache.missing() and head_is_whole(cache) else None
