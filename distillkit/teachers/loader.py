"""The teacher of a white-box run in whichever way it is had: whole, block by block, or as its exact cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

from distillkit.data.stored_rows import Rows
from distillkit.data.training_rows import teacher_token_ids
from distillkit.device.int8 import quantise_layers
from distillkit.device.malloc import trim_heap
from distillkit.errors import PreconditionError
from distillkit.models.located import LocatedModel
from distillkit.models.model_files import read_config
from distillkit.models.pruning import decoder_blocks
from distillkit.models.shape import ModelShape, model_shape
from distillkit.processes.taking_part import Share, together, unshared
from distillkit.run.context import TrainingContext
from distillkit.storage import fingerprint_of, free_disk_bytes, make_folder, remove_tree, write_json
from distillkit.teachers.blocks import BlockwiseTeacher
from distillkit.teachers.cache_entries import FOLDER
from distillkit.teachers.choices import StreamingChoice, TeacherFacts, choose_placement
from distillkit.teachers.exact_cache import CacheKey, TeacherCache, known_width
from distillkit.teachers.live import LiveTeacher
from distillkit.teachers.precompute import CachedTeacher, PassFigures, fill_cache, fill_shards, head_is_whole
from distillkit.teachers.protocol import Teacher
from distillkit.teachers.sparse_cache import missing_sparse_bytes, sparse_key
from distillkit.teachers.spread import place_teacher, teacher_memory
from distillkit.teachers.streaming import activation_bytes, activations_left, fill_cache_blockwise

# Marks an exact cache that nobody asked for: sparse targets are made from it, then it goes.
_TEMPORARY = "temporary.json"


class TeacherLoader:
    """Loads the teacher at most once, and knows its exact cache for these texts.

    Args:
        rows: the training texts, in the order of their `cache_index`.
        fingerprint: of the teacher's files; default: computed from them, which reads them all.
        teacher: that teaches; default: the teacher of the run as it came.

    Attributes:
        streaming: whether the teacher runs block by block; whoever decides (`training.decisions`) sets it.
        streamed_seconds: what `states` took to run the teacher block by block.
        number: of the teacher, where a run has several.
    """

    def __init__(
        self,
        context: TrainingContext,
        rows: Rows,
        fingerprint: str | None = None,
        teacher: LocatedModel | None = None,
    ) -> None:
        config = context.config
        self.context = context
        self.teacher = teacher or context.pair.teacher
        self.rows = rows
        self.token_ids = teacher_token_ids(rows)
        self.root = context.output_dir / FOLDER
        self.int8 = config.teacher_precision == "int8"
        fingerprint = fingerprint or self.teacher.fingerprint()
        if self.int8:
            fingerprint = fingerprint_of([fingerprint, "int8"])
        if config.attn_implementation != "auto":
            fingerprint = fingerprint_of([fingerprint, config.attn_implementation])
        self.key = CacheKey.of(self.teacher.reference.text, fingerprint, context.compute.teacher, self.token_ids)
        self.streaming = StreamingChoice(False, "not decided yet")
        self.streamed_seconds = 0.0
        self.number = 1
        self._loaded: LiveTeacher | None = None

    @cached_property
    def shape(self) -> ModelShape | None:
        """What the teacher's configuration says of it; None for one that brings its own code."""
        return model_shape(read_config(self.teacher.folder))

    @cached_property
    def width(self) -> int | None:
        """D, numbers per token in the exact cache; None where the head is more than a linear layer. Only a teacher whose
        configuration does not tell is loaded for this."""
        begun = known_width(self.root / self.key.name)
        if begun is not None:
            return begun
        if self.shape is not None and self.shape.head_is_plain is not None:
            return self.shape.width if self.shape.head_is_plain else None
        layer = self.load().head_layer
        return None if layer is None else layer.in_features

    def facts(self) -> TeacherFacts:
        """What the choices depend on, as it is now."""
        context, pair, lengths = self.context, self.context.pair, self.key.lengths
        config, itemsize = context.config, context.compute.teacher.itemsize
        exact, sparse, streaming, whole = 0, 0, 0, 0
        if config.teacher_cache != "off" and (cache := self.exact_cache()) is not None:
            missing = cache.missing()
            exact, whole = sum(shard.tokens for shard in missing) * cache.width * itemsize, cache.bytes
            inner = self.shape.inner_width if self.shape is not None else cache.width
            # What an interrupted pass has left on the disk is used again.
            streaming = activation_bytes(missing, lengths, max(cache.width, inner), itemsize)
            streaming -= activations_left(cache.folder)
        table = context.encoders.student.table
        if config.teacher_cache in ("auto", "sparse") and table is not None:
            sparse = missing_sparse_bytes(self.root, sparse_key(context, self.key, self.rows), len(table))
        return TeacherFacts(
            memory=teacher_memory(pair, context.compute),
            place=str(self.root.parent),
            tokens=self.key.tokens,
            free_disk=free_disk_bytes(self.root),
            head_is_plain=config.teacher_cache == "off" or self.width is not None,
            begun=known_width(self.root / self.key.name) is not None,
            exact_bytes=whole,
            exact_missing_bytes=exact,
            streaming_bytes=streaming,
            sparse_missing_bytes=sparse,
        )

    # --- how it is had ---------------------------------------------------------------------------------------------

    def load(self) -> LiveTeacher:
        """The whole teacher."""
        if self._loaded is None:
            pair, compute = self.context.pair, self.context.compute
            model = place_teacher(pair, compute.teacher, compute, self.context.console, instead=self.teacher)
            if self.int8:
                quantise_layers(decoder_blocks(model)[2])
            self._loaded = LiveTeacher(model, self.context.compute)
        return self._loaded

    def forget(self) -> None:
        """Let go of the teacher: it and the student are never in memory together."""
        self._loaded = None
        trim_heap()

    def exact_cache(self) -> TeacherCache | None:
        """The cache of hidden states, begun or not; None if the teacher's head is more than a linear layer."""
        return None if self.width is None else TeacherCache(self.root, self.key, self.width)

    def fill(self, cache: TeacherCache) -> PassFigures:
        """Complete the cache of hidden states, with the whole teacher or block by block."""
        (cache.folder / _TEMPORARY).unlink(missing_ok=True)
        return self._fill(cache)

    def _fill(self, cache: TeacherCache) -> PassFigures:
        if cache.missing() and self.streaming.on:
            self.context.console.info(f"the teacher runs block by block: {self.streaming.why}")
            return fill_cache_blockwise(cache, self.token_ids, self._blocks, self.context.console)
        return fill_cache(cache, self.token_ids, self.load, self.context.console, self.share("exact"))

    def fill_part(self, shards: Sequence[int]) -> None:
        """One process's part of a cache that another has begun.

        Args:
            shards: their numbers.

        Raises:
            PreconditionError: the teacher's head is more than a linear layer.
        """
        cache = self.exact_cache()
        if cache is None:
            raise PreconditionError("the teacher has no plain head to cache", hint="use --teacher-cache off")
        parts = [cache.shards[number] for number in shards]
        fill_shards(cache, parts, self.token_ids, self.load(), self.context.console)

    def share(self, mode: str) -> Share:
        """Brings all processes together for the shards of a cache of this kind, "exact" or "sparse"; a teacher that takes
        several GPUs is run by this process alone."""
        context = self.context
        if choose_placement(context.config, teacher_memory(context.pair, context.compute)).placement is not None:
            return unshared

        def values(numbers: list[int]) -> dict[str, Any]:
            teacher = {"cache": mode, "why": "", "fingerprint": context.pair.teacher.fingerprint()}
            return {
                "config": asdict(context.config), "run": str(context.run.path), "teacher": teacher, "shards": numbers,
                "number": self.number,
            }  # fmt: skip

        return lambda numbers: together("teacher pass", lambda: values(numbers))

    def _blocks(self) -> BlockwiseTeacher:
        prepare = quantise_layers if self.int8 else None
        compute = self.context.compute
        return BlockwiseTeacher(self.teacher, compute.teacher, compute.device, prepare)

    def states(self) -> Teacher:
        """From the exact cache if that is complete, else the model; block by block, from an exact cache made for it."""
        cache, device = self.exact_cache(), self.context.compute.device
        if cache is not None and not cache.missing() and head_is_whole(cache):
            self.context.console.info("the teacher has read these texts before: its exact cache is used")
            return CachedTeacher(cache, device)
        if not self.streaming.on or cache is None:
            return self.load()
        if not cache.folder.exists():
            make_folder(cache.folder)
            write_json(cache.folder / _TEMPORARY, {"for": "sparse targets"})
        self.streamed_seconds = self._fill(cache).seconds
        return CachedTeacher(cache, device)

    def drop_temporary(self) -> None:
        """Delete the exact cache if it was only made to get sparse targets from it."""
        folder = self.root / self.key.name
        if (folder / _TEMPORARY).is_file() and (cache := self.exact_cache()) is not None:
            with cache.locked():
                remove_tree(folder)
