"""The sparse targets of a run: from their cache, which is completed first, by the exact cache or the model itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distillkit.alignment.token_bytes import TokenBytes
from distillkit.console import format_bytes
from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import ROW_COLUMNS
from distillkit.data.text_encoder import TextEncoders
from distillkit.errors import DistillkitError
from distillkit.settings.parameters import Parameters
from distillkit.teachers.exact_cache import free_space
from distillkit.teachers.fill_sparse import TargetMaker, Thinning, fill_sparse_cache
from distillkit.teachers.protocol import Teacher
from distillkit.teachers.source import TeacherLoader, TeacherSource, as_metrics
from distillkit.teachers.sparse_cache import BYTES_PER_TOKEN, SparseCache, SparseKey


def open_sparse(
    config: Parameters,
    loader: TeacherLoader,
    encoders: TextEncoders,
    examples: Sequence[Mapping[str, Any]],
    objective_of: Callable[[Teacher], TargetMaker],
    *,
    aligned: bool,
) -> TeacherSource:
    """The teacher as sparse targets.

    Args:
        examples: in the order of their `cache_index`.
        objective_of: the objective of the run with the full teacher; it makes the targets.
        aligned: whether rows are paired.

    Raises:
        DistillkitError: the cache does not fit on the disk.
        Interrupted: a signal arrived during the teacher pass.
    """
    table = encoders.student.table
    if table is None:
        raise ValueError("white box needs token bytes")
    key = _key_of(config, loader, table, examples, aligned=aligned)
    cache = SparseCache(loader.root, key)
    needed = sum(shard.tokens for shard in cache.files.missing()) * BYTES_PER_TOKEN
    if needed > (free := free_space(loader.root)):
        raise DistillkitError(
            f"the sparse teacher cache takes about {format_bytes(needed)}, {format_bytes(free)} are free in {loader.root.parent}",
            hint="free some space, or use --teacher-cache off",
        )
    thinning = Thinning(config.sparse_method, config.sparse_size, config.temperature, len(table), config.seed)
    figures = fill_sparse_cache(
        cache,
        examples,
        DistillationCollator(white_box=True, aligned=aligned),
        lambda: objective_of(loader.states()),
        thinning,
        loader.compute.device,
        loader.console,
    )
    figures.seconds += loader.streamed_seconds
    loader.drop_temporary()
    loader.forget()  # Teacher and student are never in memory together.
    if figures.cached_tokens == figures.tokens:
        loader.console.info(f"the teacher has read these texts before: {format_bytes(cache.bytes)} of sparse targets")
    cache.open()
    return TeacherSource(None, None, as_metrics(figures), cache)


def _key_of(
    config: Parameters,
    loader: TeacherLoader,
    table: TokenBytes,
    examples: Sequence[Mapping[str, Any]],
    *,
    aligned: bool,
) -> SparseKey:
    columns = ("student_ids", "teacher_ids", *ROW_COLUMNS) if aligned else ("student_ids",)
    digest = hashlib.sha256()
    for example in examples:
        for name in ("first_target", *columns):
            values = np.atleast_1d(np.asarray(example[name], dtype="<i8"))
            digest.update(len(values).to_bytes(8, "little") + values.tobytes())
    pieces = hashlib.sha256(repr((table.pieces, table.leading_space, sorted(table.shadowed))).encode())
    facts: dict[str, Any] = {
        "fingerprint": loader.key.fingerprint,
        "dtype": str(loader.key.dtype).removeprefix("torch."),
        "teacher_texts": loader.key.texts,
        "rows": digest.hexdigest(),
        "student_tokens": pieces.hexdigest(),
        "temperature": config.temperature,
        "alignment": "bpm" if aligned and config.alignment == "auto" else config.alignment,
        "prefix_map": config.prefix_map if aligned else "",
        "method": config.sparse_method,
        "size": config.sparse_size,
        "seed": config.seed,
    }
    return SparseKey(loader.key.teacher, facts, tuple(len(example["student_ids"]) for example in examples))
