"""Rows from a table, beside the lists that they stand for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from distillkit.data.stored_rows import JoinedRows, Rows, StoredRows, TakenRows, table_of

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("ids", pa.list_(pa.int32())),
        ("text", pa.large_string()),
        ("spans", pa.list_(pa.list_(pa.int32()))),
    ]
)


def plain(count: int, seed: int = 0) -> list[dict[str, object]]:
    draw = np.random.default_rng(seed)
    return [
        {
            "id": 100 + index,
            "ids": draw.integers(0, 50_000, draw.integers(0, 9)).tolist(),
            "text": f"text {index}",
            "spans": [[index, index + 2]] if index % 2 else [],
        }
        for index in range(count)
    ]


def stored(rows: list[dict[str, object]], portion: int) -> StoredRows:
    portions = [rows[begin : begin + portion] for begin in range(0, len(rows), portion)]
    return StoredRows(table_of(portions, SCHEMA))


def check(rows: Rows, expected: list[dict[str, object]]) -> None:
    assert list(rows) == expected
    assert len(rows) == len(expected)
    assert rows.numbers("id").tolist() == [row["id"] for row in expected]
    assert rows.lengths("ids").tolist() == [len(row["ids"]) for row in expected]  # type: ignore[arg-type]
    assert list(rows.lists("ids")) == [row["ids"] for row in expected]
    assert list(rows.lists("ids")[1:3]) == [row["ids"] for row in expected[1:3]]
    for bad in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            rows[bad]


@pytest.mark.parametrize("portion", [1, 3, 7, 100])
def test_rows_are_those_that_were_written(portion: int) -> None:
    expected = plain(20)
    rows = stored(expected, portion)
    check(rows, expected)
    assert rows[-1] == expected[-1]
    check(rows[3:11:2], expected[3:11:2])
    check(TakenRows(rows, [5, 5, 0]), [expected[5], expected[5], expected[0]])
    check(rows + TakenRows(rows, [2]) + rows, [*expected, expected[2], *expected])
    check(TakenRows(rows + rows, [21, 3]), [expected[1], expected[3]])


def test_there_may_be_none() -> None:
    for rows in (JoinedRows([]), stored([], 1)):
        check(rows, [])


def test_a_sliced_table_keeps_its_own_rows() -> None:
    expected = plain(9)
    check(StoredRows(table_of([expected], SCHEMA).slice(2, 5)), expected[2:7])


def test_what_every_row_has_besides() -> None:
    expected = plain(5)

    def complete(row: dict[str, object], index: int) -> None:
        row["place"] = index

    rows = StoredRows(table_of([expected], SCHEMA), {"id": "id", "tokens": "ids"}, {"first": 1, "own": False}, complete)
    assert rows[3] == {"id": 103, "tokens": expected[3]["ids"], "first": 1, "own": False, "place": 3}
    assert rows.numbers("first").tolist() == [1] * 5
    assert rows.numbers("own").dtype == bool
    other = rows.of_columns({"student": "ids"}, {})
    assert other[0] == {"student": expected[0]["ids"]}
    assert np.array_equal(other.lengths("student"), rows.lengths("tokens"))
