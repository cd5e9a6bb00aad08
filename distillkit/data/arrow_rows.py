"""Rows of text from Arrow files: those of `save_to_disk`, IPC streams and files, Feather."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distillkit.data.arrow_columns import choose_arrow_layout, decoded_rows, values_of_batches
from distillkit.data.bad_rows import BadRow
from distillkit.data.formats import DataFile
from distillkit.data.rows import Row
from distillkit.errors import UsageError, first_line
from distillkit.interrupts import check_interrupted

_FILE_MAGIC = b"ARROW1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
_FEATHER_1_MAGIC = b"FEA1"
# What becomes of one batch is held at once, and a batch may be the whole file.
_ROWS = 512


def read_arrow(file: DataFile) -> Iterator[Row | BadRow]:
    """Rows of an Arrow file, stream or file with an index; of all its columns only those that are read are decoded.

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


def _arrow_rows(source: Any, file: DataFile) -> Iterator[Row | BadRow]:
    import pyarrow

    name = file.name
    try:
        head = source.read(len(_FILE_MAGIC))
        if head.startswith(_FEATHER_1_MAGIC):
            raise UsageError(
                f"{name}: Feather version 1 is not read", hint="convert it: pandas.read_feather(…).to_parquet(…)"
            )
        is_file = head == _FILE_MAGIC
        if not is_file and not _ends_with(source, _STREAM_END):
            # Arrow takes that for the end, where a whole batch is missing too.
            file.notes.remark_of(name, "ends without the mark of an end, so it may be cut off")
        schema = _reader(source, is_file, None).schema

        def read_first(names: list[str]) -> Mapping[str, Sequence[Any]]:
            indices = [schema.names.index(name) for name in names]
            return values_of_batches(_batches(source, is_file, indices), names) if names else {}

        layout = choose_arrow_layout(schema, read_first, file.options, name)
        layout.note(name, file.notes)
        row = 0
        for batch in _batches(source, is_file, [schema.names.index(column) for column in layout.names]):
            for start in range(0, batch.num_rows, _ROWS):
                check_interrupted()
                some = {column: batch.column(column).slice(start, _ROWS) for column in layout.names}
                for cells, troubles in decoded_rows(some):
                    row += 1
                    yield layout.row(cells, f"{name}, row {row:,}", f"{name}:{row}", troubles)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError, EOFError) as error:
        raise UsageError(
            f"{name}: not a sound Arrow file ({first_line(error)})", hint="fetch the file again"
        ) from error


def _ends_with(source: Any, ending: bytes) -> bool:
    size = source.seek(0, 2)
    source.seek(max(0, size - len(ending)))
    return source.read(len(ending)) == ending


def _reader(source: Any, is_file: bool, columns: list[int] | None) -> Any:
    """A reader of some columns, None for all, from the beginning of the file."""
    import pyarrow

    source.seek(0)
    options = pyarrow.ipc.IpcReadOptions(use_threads=False, included_fields=columns)
    return (pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream)(source, options=options)


def _batches(source: Any, is_file: bool, columns: list[int]) -> Iterator[Any]:
    """The batches with some columns, which are sound but for bytes that may not be UTF-8."""
    reader = _reader(source, is_file, columns)
    for batch in (reader.get_batch(number) for number in range(reader.num_record_batches)) if is_file else reader:
        for column in batch.columns:
            _as_bytes(column).validate(full=True)
        yield batch


def _as_bytes(column: Any) -> Any:
    """A column of strings as bytes, of which Arrow checks the lengths alone: in a damaged file they lead anywhere."""
    import pyarrow
    from pyarrow import types

    for is_text, kind in (
        (types.is_string, pyarrow.binary()),
        (types.is_large_string, pyarrow.large_binary()),
        (types.is_string_view, pyarrow.binary_view()),
    ):
        if is_text(column.type):
            return column.view(kind)
    return column
