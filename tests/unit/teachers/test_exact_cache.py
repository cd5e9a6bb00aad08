"""The teacher cache: what it gives back, and what it refuses to trust."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model

from distillkit.console import Console
from distillkit.data.batching import DistillationCollator
from distillkit.device.precision import choose_compute
from distillkit.errors import DistillkitError
from distillkit.settings.parameters import Parameters
from distillkit.teachers.cache_entries import delete_cache, list_caches
from distillkit.teachers.exact_cache import CacheKey, TeacherCache
from distillkit.teachers.live import LiveTeacher
from distillkit.teachers.precompute import CachedTeacher, fill_cache

TEXTS = [[1, 2, 3], [4, 5], [6, 7, 8, 9, 10], [11], [12, 13, 14, 15], [16, 17]]
QUIET = Console(quiet=True)


@pytest.fixture
def teacher() -> LiveTeacher:
    torch.manual_seed(0)
    return LiveTeacher(tiny_model("llama", 300, layers=2, hidden=32).eval(), choose_compute(Parameters(no_cuda=True)))


def key_of(texts: list[list[int]] = TEXTS, dtype: torch.dtype = torch.float32, weights: str = "weights") -> CacheKey:
    return CacheKey.of("a teacher", weights, dtype, texts)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """About two texts in a shard."""
    monkeypatch.setattr("distillkit.teachers.exact_cache._SHARD_BYTES", 6 * 32 * 4)


def filled(root: Path, teacher: LiveTeacher) -> TeacherCache:
    cache = TeacherCache(root, key_of(), 32)
    fill_cache(cache, TEXTS, lambda: teacher, QUIET)
    return cache


def batch_of(indices: list[int]) -> dict[str, Any]:
    rows = [{"id": index, "student_ids": TEXTS[index], "first_target": 1, "cache_index": index} for index in indices]
    return DistillationCollator(white_box=True, aligned=False)(rows)


def nobody() -> LiveTeacher:
    raise AssertionError("the teacher was loaded")


@pytest.mark.usefixtures("small_shards")
def test_hidden_states_and_logits_are_the_teachers(tmp_path: Path, teacher: LiveTeacher) -> None:
    cache = filled(tmp_path, teacher)
    assert len(cache.shards) > 2
    cached = CachedTeacher(cache, torch.device("cpu"))
    for indices in ([0, 2], [5, 1, 3], [4]):
        batch = batch_of(indices)
        kept = batch["teacher_attention_mask"].flatten().bool()
        live = teacher.hidden(batch)
        torch.testing.assert_close(cached.hidden(batch)[kept], live[kept], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(cached.head(live), teacher.head(live))


@pytest.mark.usefixtures("small_shards")
def test_a_complete_cache_needs_no_teacher(tmp_path: Path, teacher: LiveTeacher) -> None:
    filled(tmp_path, teacher)
    figures = fill_cache(TeacherCache(tmp_path, key_of(), 32), TEXTS, nobody, QUIET)
    assert (figures.tokens, figures.cached_tokens) == (17, 17)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink])
@pytest.mark.parametrize("which", ["shard-00001.bin", "shard-00001.json", "head.safetensors"])
@pytest.mark.usefixtures("small_shards")
def test_what_is_damaged_is_computed_again(tmp_path: Path, teacher: LiveTeacher, damage: Any, which: str) -> None:
    cache = filled(tmp_path, teacher)
    content = {path.name: path.read_bytes() for path in cache.folder.iterdir()}
    damage(cache.folder / which)
    again = TeacherCache(tmp_path, key_of(), 32)
    said = io.StringIO()
    figures = fill_cache(again, TEXTS, lambda: teacher, Console(err=said))
    # A record that is gone is what an interrupted writing leaves; nothing is damaged then.
    finished = which.startswith("shard") and not (which.endswith("json") and damage is Path.unlink)
    assert ("shard-00001.bin damaged, computed again" in said.getvalue()) == finished
    redone = 0 if which == "head.safetensors" else again.shards[1].tokens
    assert figures.cached_tokens == figures.tokens - redone
    for path in again.folder.glob("*.bin"):
        assert path.read_bytes() == content[path.name]
    assert (again.folder / "head.safetensors").read_bytes() == content["head.safetensors"]


@pytest.mark.usefixtures("small_shards")
def test_an_interrupted_pass_goes_on_where_it_was(tmp_path: Path, teacher: LiveTeacher) -> None:
    class Stopped(Exception):  # noqa: N818
        pass

    undisturbed = filled(tmp_path / "one", teacher)
    cache = TeacherCache(tmp_path / "two", key_of(), 32)
    real, calls = cache.write, []

    def write(*given: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Stopped
        real(*given)

    cache.write = write  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        fill_cache(cache, TEXTS, lambda: teacher, QUIET)
    rest = TeacherCache(tmp_path / "two", key_of(), 32)
    assert [shard.number for shard in rest.missing()] == [shard.number for shard in rest.shards[2:]]
    fill_cache(rest, TEXTS, lambda: teacher, QUIET)
    for shard in undisturbed.folder.glob("*.bin"):
        assert shard.read_bytes() == (rest.folder / shard.name).read_bytes()


def test_the_key_is_everything_that_the_states_depend_on() -> None:
    names = {
        key_of().name, key_of(dtype=torch.bfloat16).name, key_of(weights="others").name, key_of(TEXTS[:-1]).name,
        key_of([[1, 2], [3], *TEXTS[1:]]).name, key_of(TEXTS[::-1]).name,
    }  # fmt: skip
    assert len(names) == 6
    assert key_of().name == key_of().name


@pytest.mark.usefixtures("small_shards")
def test_pruning_does_not_disturb_who_reads(tmp_path: Path, teacher: LiveTeacher) -> None:
    cached = CachedTeacher(filled(tmp_path, teacher), torch.device("cpu"))
    expected = cached.hidden(batch_of([0, 4]))
    (entry,) = list_caches(tmp_path)
    delete_cache(entry)
    assert not entry.folder.exists()
    assert torch.equal(cached.hidden(batch_of([0, 4])), expected)


def test_what_is_no_cache_is_listed_as_unreadable(tmp_path: Path, teacher: LiveTeacher) -> None:
    cache = filled(tmp_path / "caches", teacher)
    (tmp_path / "caches" / "torn").mkdir()
    (tmp_path / "caches" / "link").symlink_to(tmp_path)
    shutil.copytree(cache.folder, tmp_path / "caches" / "copy")
    (tmp_path / "caches" / "copy" / "meta.json").write_text(json.dumps([1]), encoding="utf-8")
    found = {entry.folder.name: entry.teacher for entry in list_caches(tmp_path / "caches")}
    assert found == {cache.folder.name: "a teacher", "torn": "unreadable", "copy": "unreadable"}
    assert list_caches(tmp_path / "nothing") == []


def test_states_in_another_format_are_stored_in_that_of_the_key(tmp_path: Path, teacher: LiveTeacher) -> None:
    """A model whose last norm stays in fp32 gives such states whatever it is loaded in."""
    whole = filled(tmp_path / "fp32", teacher)
    cache = TeacherCache(tmp_path / "bf16", key_of(dtype=torch.bfloat16), whole.width)
    cache.begin()
    whole.open()
    for shard in cache.missing():
        cache.write(shard, torch.cat([whole.read(text) for text in range(shard.first, shard.last)]), 0.1)
    cache.open()
    for text in range(len(TEXTS)):
        assert torch.equal(cache.read(text), whole.read(text).bfloat16())


def test_a_head_in_another_format_than_the_states_is_refused(tmp_path: Path, teacher: LiveTeacher) -> None:
    cache = filled(tmp_path, teacher)
    head = cache.folder / "head.safetensors"
    save_file({name: values.half() for name, values in load_file(head).items()}, head)
    with pytest.raises(DistillkitError, match="in a wrong format") as caught:
        CachedTeacher(cache, torch.device("cpu"))
    assert str(cache.folder) in (caught.value.hint or "")
