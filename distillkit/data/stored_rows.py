"""Rows that lie in an Arrow table, on the disk as a rule: each is made when it is asked for, and never are all there at once.

Fifty thousand texts of 4096 tokens would take some 15 GB as Python lists; the memory map of their table costs nothing that the
system cannot take back.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa

# Tokens that are held as Python objects while a table is made of them.
PORTION_TOKENS = 1 << 16


class Rows(Sequence[dict[str, Any]]):
    """Mappings by place, and what is wanted of all of them at once."""

    @abstractmethod
    def row(self, index: int) -> dict[str, Any]:
        """The row at `index`, 0 <= index < len."""

    @abstractmethod
    def value(self, name: str, index: int) -> Any:
        """One value of a row, without the others."""

    @abstractmethod
    def numbers(self, name: str) -> np.ndarray:
        """[len] a value that is a number or a truth in every row."""

    @abstractmethod
    def lengths(self, name: str) -> np.ndarray:
        """[len] int64, the lengths of a value that is a list in every row."""

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Rows:
        if isinstance(index, slice):
            return TakenRows(self, range(len(self))[index])
        return self.row(range(len(self))[index])

    def lists(self, name: str) -> Lists:
        """A value that is a list of numbers in every row."""
        return Lists(self, name)

    def __add__(self, other: Rows) -> Rows:
        return JoinedRows([self, other])


class Lists(Sequence[list[int]]):
    """One list of each row, read when it is asked for: token ids, as a rule."""

    def __init__(self, rows: Rows, name: str) -> None:
        self._rows, self._name = rows, name

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> Lists: ...
    def __getitem__(self, index: int | slice) -> list[int] | Lists:
        if isinstance(index, slice):
            return Lists(self._rows[index], self._name)
        return self._rows.value(self._name, range(len(self))[index])


class StoredRows(Rows):
    """The rows of a table.

    Args:
        table: a value that is missing is None.
        names: what a row has -> the column that it is in; default: every column under its own name.
        fixed: what every row has besides.
        complete: adds to a row what follows from it and its place.
    """

    def __init__(
        self,
        table: pa.Table,
        names: Mapping[str, str] | None = None,
        fixed: Mapping[str, Any] | None = None,
        complete: Callable[[dict[str, Any], int], None] | None = None,
    ) -> None:
        self.table = table
        self.names = {name: name for name in table.column_names} if names is None else dict(names)
        self.fixed = dict(fixed or {})
        self._complete = complete
        columns = {column: table.column(column) for column in self.names.values()}
        self._chunks = {column: values.chunks for column, values in columns.items()}
        # The columns of a table may be in chunks of different sizes.
        self._starts = {
            column: np.cumsum([0, *map(len, chunks)], dtype=np.int64) for column, chunks in self._chunks.items()
        }

    def __len__(self) -> int:
        return self.table.num_rows

    def row(self, index: int) -> dict[str, Any]:
        row = {name: self._stored(column, index) for name, column in self.names.items()} | self.fixed
        if self._complete is not None:
            self._complete(row, index)
        return row

    def value(self, name: str, index: int) -> Any:
        return self._stored(self.names[name], index)

    def numbers(self, name: str) -> np.ndarray:
        if name in self.fixed:
            return np.full(len(self), self.fixed[name])
        return self.table.column(self.names[name]).to_numpy()

    def lengths(self, name: str) -> np.ndarray:
        chunks = self._chunks[self.names[name]]
        return np.concatenate([np.zeros(0, dtype=np.int64), *(np.diff(chunk.offsets.to_numpy()) for chunk in chunks)])

    def of_columns(
        self,
        names: Mapping[str, str],
        fixed: Mapping[str, Any],
        complete: Callable[[dict[str, Any], int], None] | None = None,
    ) -> StoredRows:
        """Other rows over the same table."""
        return StoredRows(self.table, names, fixed, complete)

    def _stored(self, column: str, index: int) -> Any:
        starts = self._starts[column]
        chunk = int(np.searchsorted(starts, index, side="right")) - 1
        scalar = self._chunks[column][chunk][index - int(starts[chunk])]
        if pa.types.is_list(scalar.type) and pa.types.is_integer(scalar.type.value_type):
            # Many times as fast as `as_py`, which makes an object of Arrow's for each number.
            return scalar.values.to_numpy().tolist()
        return scalar.as_py()


class TakenRows(Rows):
    """Some of other rows, in an order of their own."""

    def __init__(self, rows: Rows, places: Sequence[int] | np.ndarray) -> None:
        self._rows = rows
        self._places = np.asarray(places, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def row(self, index: int) -> dict[str, Any]:
        return self._rows.row(int(self._places[index]))

    def value(self, name: str, index: int) -> Any:
        return self._rows.value(name, int(self._places[index]))

    def numbers(self, name: str) -> np.ndarray:
        return self._rows.numbers(name)[self._places]

    def lengths(self, name: str) -> np.ndarray:
        return self._rows.lengths(name)[self._places]


class JoinedRows(Rows):
    """Rows one after the other; without parts, no rows."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = [part for part in parts if len(part)]
        self._starts = np.cumsum([0, *map(len, self._parts)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, index: int) -> dict[str, Any]:
        part, place = self._find(index)
        return part.row(place)

    def value(self, name: str, index: int) -> Any:
        part, place = self._find(index)
        return part.value(name, place)

    def numbers(self, name: str) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype=np.int64), *(part.numbers(name) for part in self._parts)])

    def lengths(self, name: str) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype=np.int64), *(part.lengths(name) for part in self._parts)])

    def _find(self, index: int) -> tuple[Rows, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part], index - int(self._starts[part])


def table_of(portions: Iterable[Sequence[Mapping[str, Any]]], schema: pa.Schema) -> pa.Table:
    """A table in memory, as compact as its numbers: of portions of rows, of which only one is held as Python objects."""
    batches = [pa.RecordBatch.from_pylist(list(portion), schema=schema) for portion in portions if portion]
    return pa.Table.from_batches(batches, schema=schema)
