"""Rows of text from Parquet files; of all columns only those with the texts are read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from distillkit.data.arrow_columns import choose_arrow_layout, decoded_rows, first_values
from distillkit.data.bad_rows import BadRow
from distillkit.data.formats import DataFile
from distillkit.data.rows import Row
from distillkit.errors import UsageError, first_line
from distillkit.interrupts import check_interrupted

_ROWS = 512


def read_parquet(file: DataFile) -> Iterator[Row | BadRow]:
    """Rows of a Parquet file.

    Raises:
        UsageError: the file cannot be used, or it is not clear which column holds the text.
    """
    with file.open() as stream:
        if not file.is_packed:
            yield from _rows(file.path, file)
            return
        # Parquet is read from its end, which a packed stream cannot do.
        with tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(stream, unpacked)
            unpacked.seek(0)
            yield from _rows(unpacked, file)


def _rows(source: Any, file: DataFile) -> Iterator[Row | BadRow]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    name = file.name
    try:
        # Without Arrow's threads: `source` may be a Python stream, and a thread that lets go of it while the interpreter
        # ends takes the process down.
        parquet = ParquetFile(source, pre_buffer=False)
        layout = choose_arrow_layout(
            parquet.schema_arrow, lambda names: first_values(source, names), file.options, name
        )
        layout.note(name, file.notes)
        row = 0
        for batch in parquet.iter_batches(_ROWS, columns=layout.names, use_threads=False):
            check_interrupted()
            for cells, troubles in decoded_rows({column: batch.column(column) for column in layout.names}):
                row += 1
                yield layout.row(cells, f"{name}, row {row:,}", f"{name}:{row}", troubles)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise UsageError(
            f"{name}: not a sound Parquet file ({first_line(error)})", hint="fetch the file again"
        ) from error
