"""Rows of text from Arrow files: those of `save_to_disk`, IPC streams and files, Feather."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from distillkit.data.formats import DataFile
from distillkit.data.rows import Row
from distillkit.data.tables import encodable, parquet_column
from distillkit.errors import UsageError, first_line
from distillkit.interrupts import check_interrupted

_FILE_MAGIC = b"ARROW1"
_FEATHER_1_MAGIC = b"FEA1"
# What becomes of one batch is held at once, and a batch may be the whole file.
_ROWS = 512


def read_arrow(file: DataFile) -> Iterator[Row]:
    """Rows of an Arrow file, stream or file with an index; of all its columns only the one with the text is decoded.

    Raises:
        UsageError: the file or one of its rows cannot be used.
    """
    import pyarrow

    with file.open() as stream:
        if not file.is_packed:
            # Without Python streams: Arrow reads the file itself.
            source: Any = pyarrow.OSFile(str(file.path))
            with source:
                yield from _arrow_rows(source, file)
            return
        # An IPC file is read from its end, which a packed one cannot be.
        with tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(stream, unpacked)
            unpacked.seek(0)
            yield from _arrow_rows(pyarrow.PythonFile(unpacked, mode="r"), file)


def _arrow_rows(source: Any, file: DataFile) -> Iterator[Row]:
    import pyarrow

    name = file.name
    try:
        head = source.read(len(_FILE_MAGIC))
        if head.startswith(_FEATHER_1_MAGIC):
            raise UsageError(
                f"{name}: Feather version 1 is not read", hint="convert it: pandas.read_feather(…).to_parquet(…)"
            )
        is_file = head == _FILE_MAGIC
        schema = next(_batches(source, is_file, None)).schema
        column = parquet_column(schema, file.text_column, name)
        row = 0
        for batch in _batches(source, is_file, schema.get_field_index(column)):
            # A damaged file may hold lengths that lead outside its buffers.
            batch.validate(full=True)
            for start in range(0, batch.num_rows, _ROWS):
                check_interrupted()
                for text in batch.column(0).slice(start, _ROWS).to_pylist():
                    row += 1
                    if text is None:
                        file.notes.count("rows without text left out")
                    else:
                        yield Row(encodable(text, f"{name}, row {row:,}, column '{column}'"), f"{name}:{row}")
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError, EOFError) as error:
        raise UsageError(
            f"{name}: not a sound Arrow file ({first_line(error)})", hint="fetch the file again"
        ) from error


def _batches(source: Any, is_file: bool, column: int | None) -> Iterator[Any]:
    """The batches with one column, or with all of them; one without rows where there is no batch."""
    import pyarrow

    source.seek(0)
    options = pyarrow.ipc.IpcReadOptions(use_threads=False, included_fields=None if column is None else [column])
    if is_file:
        reader: Any = pyarrow.ipc.open_file(source, options=options)
        every: Iterator[Any] = (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        reader = pyarrow.ipc.open_stream(source, options=options)
        every = iter(reader)
    yielded = False
    for batch in every:
        yielded = True
        yield batch
    if not yielded:
        yield pyarrow.RecordBatch.from_pylist([], schema=reader.schema)
