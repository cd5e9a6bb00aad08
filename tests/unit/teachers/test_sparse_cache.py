"""The sparse teacher cache: what it gives back, whatever the batches were, and what it refuses to trust."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distillkit.console import Console
from distillkit.losses.chunked import SoftTargets
from distillkit.losses.mapped_mass import MappedMass
from distillkit.teachers import fill_sparse
from distillkit.teachers.fill_sparse import Thinning, fill_sparse_cache
from distillkit.teachers.sparse_cache import SparseCache, SparseKey, SparseRows

V = 40
QUIET = Console(quiet=True)
EXAMPLES = [
    {"id": index, "student_ids": list(range(3, 3 + length)), "first_target": 1, "cache_index": index}
    for index, length in enumerate([5, 9, 2, 12, 7, 1, 30])
]


class Teacher:
    """Targets that depend on the text and the row alone; every third row has none."""

    def __init__(self) -> None:
        self.calls = 0
        self.mass = MappedMass()

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def soft_targets(self, batch: Mapping[str, Any]) -> SoftTargets:
        self.calls += 1
        rows, width = batch["target_rows"], batch["labels"].shape[1]
        places = [(batch["host"].example_ids[row // width], int(row % width)) for row in rows.tolist()]
        return _Targets(
            torch.arange(len(rows)),
            torch.stack([log_target(*place) for place in places] or [log_target(0, 2)])[: len(rows)],
        )


class _Targets:
    def __init__(self, rows: Tensor, values: Tensor) -> None:
        self.rows, self.values = rows, values

    def log_target(self, begin: int, end: int, columns: int) -> Tensor:
        assert columns == V
        return self.values[begin:end]


def log_target(text: int, row: int) -> Tensor:
    if row % 3 == 2:
        return torch.full((V,), -torch.inf)
    return torch.randn(V, generator=torch.Generator().manual_seed(100 * text + row)) * 2


def key(**facts: Any) -> SparseKey:
    return SparseKey("a teacher", {"temperature": 2.0, **facts}, tuple(len(row["student_ids"]) for row in EXAMPLES))


def fill(root: Path, *, method: str = "sampling", size: int = 64, teacher: Any = None) -> SparseCache:
    cache = SparseCache(root, key())
    thinning = Thinning(method, size, 2.0, V, seed=7)
    fill_sparse_cache(cache, EXAMPLES, teacher or Teacher, thinning, torch.device("cpu"), QUIET, aligned=False)
    cache.open()
    return cache


def nobody() -> Any:
    raise AssertionError("the teacher was loaded")


@pytest.mark.parametrize("method", ["sampling", "top-k"])
def test_reads_what_the_teacher_said(tmp_path: Path, method: str) -> None:
    cache = fill(tmp_path, method=method, size=32)
    for text, example in enumerate(EXAMPLES):
        found = cache.read(text)
        # The row at r predicts the token at r + 1.
        expected = [row for row in range(len(example["student_ids"]) - 1) if row % 3 != 2]
        assert found.rows.tolist() == expected
        ids, probabilities = found.padded()
        for place, row in enumerate(expected):
            p = torch.softmax(log_target(text, row) / 2.0, -1)
            stored = torch.zeros(V).index_add(0, ids[place], probabilities[place])
            if method == "sampling":
                assert float(stored.sum()) == pytest.approx(1.0)
                assert float((stored - p).abs().max()) <= 1 / 32 + 1e-6
            else:
                kept = ids[place]
                torch.testing.assert_close(stored[kept], p[kept], rtol=1e-3, atol=1e-6)
                assert float(found.tails[place]) == pytest.approx(1 - float(p[kept].sum()), abs=1e-3)


def test_neither_batches_nor_shards_change_the_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fill(tmp_path / "one")
    monkeypatch.setattr(fill_sparse, "_BATCH_TOKENS", 10)
    monkeypatch.setattr("distillkit.teachers.sparse_cache.TOKENS_PER_SHARD", 14)
    parts = fill(tmp_path / "two")
    assert len(parts.files.shards) > 3
    for text in range(len(EXAMPLES)):
        one, other = whole.read(text), parts.read(text)
        for name in ("rows", "counts", "tails", "ids", "probabilities"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("damage", ["flip", "shorten", "unlink"])
@pytest.mark.parametrize("ending", ["bin", "json"])
def test_what_is_damaged_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, ending: str
) -> None:
    monkeypatch.setattr("distillkit.teachers.sparse_cache.TOKENS_PER_SHARD", 14)
    cache = fill(tmp_path)
    fill(tmp_path, teacher=nobody)
    path = cache.folder / f"shard-00001.{ending}"
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    elif damage == "shorten":
        path.write_bytes(content[:-2])
    else:
        path.unlink()
    before = (cache.folder / "shard-00001.bin").read_bytes() if ending == "json" else content
    again = SparseCache(tmp_path, key())
    assert [shard.number for shard in again.files.missing()] == [1]
    teachers: list[Teacher] = []

    def load() -> Teacher:
        teachers.append(Teacher())
        return teachers[-1]

    fill(tmp_path, teacher=load)
    assert len(teachers) == 1
    assert (cache.folder / "shard-00001.bin").read_bytes() == before


def test_a_shard_of_other_texts_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    monkeypatch.setattr("distillkit.teachers.sparse_cache.TOKENS_PER_SHARD", 14)
    cut = SparseCache(tmp_path, key())
    assert len(cut.files.missing()) == len(cut.files.shards)


def test_a_text_without_rows(tmp_path: Path) -> None:
    found = fill(tmp_path).read(5)
    assert len(found.rows) == len(found.ids) == 0
    ids, _ = found.padded()
    assert ids.shape[0] == 0


def test_ids_beyond_two_bytes(tmp_path: Path) -> None:
    row = SparseRows(np.array([0]), np.array([2]), np.array([0.25]), np.array([7, 151_000]), np.array([0.5, 0.25]))
    cache = SparseCache(tmp_path, SparseKey("a teacher", {}, (3,)))
    cache.begin()
    cache.files.write(cache.files.shards[0], cache.pack([row]))
    cache.open()
    found = cache.read(0)
    assert found.ids.tolist() == [7, 151_000]
    assert found.probabilities.tolist() == [0.5, 0.25]
    assert found.tails.tolist() == [0.25]


def test_other_facts_are_another_cache() -> None:
    assert len({key().name, key(temperature=1.0).name, key(method="top-k").name}) == 3
    assert key().name == key().name
