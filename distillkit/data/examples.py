"""Examples, and the Arrow files in which a run keeps them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distillkit.alignment.rows import AlignedRows
from distillkit.data.stored_rows import PORTION_TOKENS, StoredRows
from distillkit.silence_libraries import silence_datasets


@dataclass
class Example:
    """One text or piece of a text, read by both models. Rows: the row at r predicts token r + 1.

    Of a conversation `text` is the canonical form of its turns, `bytes` are those that are scored, the ids are the rendered
    conversation in each model's template, and there are four lists more, of ranges of tokens [begin, end): what each model
    is trained on, and what it is scored by. They are None for a text.
    """

    document: int
    text: str
    bytes: int
    ends_text: bool
    student_ids: list[int]
    teacher_ids: list[int]
    student_tokens: int
    teacher_tokens: int
    rows: AlignedRows | None = None
    target_spans: Sequence[tuple[int, int]] | None = None
    teacher_target_spans: Sequence[tuple[int, int]] | None = None
    student_scored: Sequence[tuple[int, int]] | None = None
    teacher_scored: Sequence[tuple[int, int]] | None = None


ROW_COLUMNS = ("student_rows", "teacher_rows", "skips", "end_rows", "end_skips")
"""The columns that pair the rows of the two models, as in `AlignedRows`; empty where both read the same tokens."""

SPAN_COLUMNS = ("target_spans", "teacher_target_spans", "student_scored", "teacher_scored")
"""The columns of a conversation's ranges of tokens, as in `Example`; null for a text."""

_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("document", pa.int64()),
        ("text", pa.large_string()),
        ("bytes", pa.int64()),
        ("ends_text", pa.bool_()),
        ("student_ids", pa.list_(pa.int32())),
        ("teacher_ids", pa.list_(pa.int32())),
        ("student_tokens", pa.int32()),
        ("teacher_tokens", pa.int32()),
        *((name, pa.list_(pa.int32())) for name in ROW_COLUMNS),
        *((name, pa.list_(pa.list_(pa.int32()))) for name in SPAN_COLUMNS),
    ]
)


def save_examples(examples: Iterable[Example], folder: Path) -> None:
    """Write examples as an Arrow data set that `datasets.load_from_disk` reads memory-mapped.

    They are written in portions: a generator of examples is never in memory as a whole.
    """
    from datasets import Dataset

    portions = _portions_of(examples)
    first = next(portions, [])
    with silence_datasets():
        # The library writes the files around the data, and a beginning, ...
        beginning = _table(first, 0)
        Dataset(beginning, fingerprint=_fingerprint_of(beginning)).save_to_disk(str(folder))
    if not first:
        return
    (data,) = folder.glob("*.arrow")
    with pa.OSFile(str(data)) as source:
        schema = pa.ipc.open_stream(source).schema
    # ... which is written again with what follows.
    with data.open("wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        written = 0
        for portion in chain([first], portions):
            stream.write_table(_table(portion, written).cast(schema))
            written += len(portion)


def _fingerprint_of(table: pa.Table) -> str:
    """What the library calls the data set; its own way, which pickles the table and all that belongs to it, takes longer."""
    content = pa.BufferOutputStream()
    with pa.ipc.new_stream(content, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(content.getvalue()).hexdigest()[:16]


def _portions_of(examples: Iterable[Example]) -> Iterator[list[Example]]:
    portion: list[Example] = []
    tokens = 0
    for example in examples:
        portion.append(example)
        tokens += len(example.student_ids) + len(example.teacher_ids)
        if tokens >= PORTION_TOKENS:
            yield portion
            portion, tokens = [], 0
    if portion:
        yield portion


def _table(examples: Sequence[Example], first: int) -> pa.Table:
    """Examples as a table; the first of them has the id `first`."""
    empty = np.zeros(0, dtype=np.int32)
    columns = {
        "id": range(first, first + len(examples)),
        **{
            name: [getattr(example, name) for example in examples]
            for name in _SCHEMA.names
            if name in Example.__dataclass_fields__
        },
        **{
            name: [getattr(example.rows, name) if example.rows else empty for example in examples]
            for name in ROW_COLUMNS
        },
    }
    return pa.table({name: pa.array(columns[name], type=_SCHEMA.field(name).type) for name in _SCHEMA.names})


def load_examples(folder: Path) -> Any:
    """The data set written by `save_examples`."""
    from datasets import load_from_disk

    return load_from_disk(str(folder))


def stored_rows(
    stored: Any,
    columns: Sequence[str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    complete: Callable[[dict[str, Any], int], None] | None = None,
) -> StoredRows:
    """The examples of `load_examples` as rows that are read when they are asked for.

    Args:
        columns: that a row has; default: all.
        fixed, complete: as for `StoredRows`.
    """
    names = stored.column_names if columns is None else columns
    return StoredRows(stored.data.table, {name: name for name in names}, fixed, complete)
