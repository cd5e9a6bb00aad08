"""Rows as other tools write them: JSON lines, Parquet, a folder of these, or a folder that `datasets` saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distillkit.errors import UsageError, first_line

_LINES, _PARQUET = (".jsonl", ".ndjson"), ".parquet"


def row_files(path: Path) -> list[Path]:
    """The files of rows at a path; of a folder that `datasets` saved the folder itself.

    Raises:
        UsageError: there are none.
    """
    if path.is_dir() and (path / "state.json").is_file():
        return [path]
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [one for one in found if one.is_file() and one.suffix.lower() in (*_LINES, _PARQUET)]
    if not files:
        what = "has none" if path.is_dir() else "is none" if path.exists() else "is not there"
        raise UsageError(
            f"rows of log-probabilities: {path} {what}",
            hint="give a .parquet or .jsonl file, a folder of these, or one that datasets' save_to_disk wrote",
        )
    return files


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row, with the words that say which it is: `data_0.parquet, row 3`, counted from 1.

    Raises:
        UsageError: there are none, or a file cannot be read.
    """
    for file in row_files(path):
        number = 0
        try:
            for number, row in enumerate(_rows(file), start=1):
                yield f"{file.name}, row {number}", row
        except (OSError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(
                f"{file.name}, after row {number}: {first_line(error)}", hint="is the file whole?"
            ) from error


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    if file.is_dir():
        from datasets import load_from_disk

        yield from load_from_disk(str(file))  # pyright: ignore[reportReturnType]
    elif file.suffix.lower() == _PARQUET:
        import pyarrow.parquet as pq

        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=16):
                yield from batch.to_pylist()
    else:
        with file.open(encoding="utf-8") as lines:
            for line in filter(str.strip, lines):
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"a line is not JSON at its character {error.pos + 1:,}") from error
                if not isinstance(row, dict):
                    raise ValueError("a line is no JSON object")
                yield row
