"""Running out of memory is explained; every other error stays what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from distillkit.device import memory
from distillkit.device.memory import explained_memory_errors, free_memory_bytes, peak_memory_bytes, total_memory_bytes
from distillkit.errors import DistillkitError


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_running_out_of_memory_names_the_flags_that_help(error: Exception) -> None:
    with pytest.raises(DistillkitError, match=r"out of memory \(peak ") as caught, explained_memory_errors():
        raise error
    assert "--batch-size" in (caught.value.hint or "")
    assert caught.value.__cause__ is error


def test_other_errors_stay_what_they_are() -> None:
    error = RuntimeError("shapes do not match")
    with pytest.raises(RuntimeError) as caught, explained_memory_errors():
        raise error
    assert caught.value is error


def test_the_figures_are_of_this_process_and_machine() -> None:
    # The interpreter and torch alone take more than this.
    assert peak_memory_bytes() > 50_000_000
    assert free_memory_bytes(torch.device("cpu")) > 0


def test_a_limit_of_the_process_counts() -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    figures = psutil.Process().memory_info()
    room = 256 << 20
    limit = getattr(figures, "data", figures.rss) + room
    if limits[1] != resource.RLIM_INFINITY and limit > limits[1]:
        pytest.skip("the limit of this process is lower already")
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limits[1]))
        assert free_memory_bytes(torch.device("cpu")) <= room
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def test_a_limit_of_the_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = tmp_path / "sys/fs/cgroup"
    groups.mkdir(parents=True)
    (groups / "memory.max").write_text("15000000")
    (groups / "memory.current").write_text("9000000")
    (groups / "memory.stat").write_text("inactive_file 1000000")
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    assert free_memory_bytes(torch.device("cpu")) == 7_000_000
    assert total_memory_bytes(torch.device("cpu")) == 15_000_000


def test_without_proc_meminfo(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise FileNotFoundError("/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", absent)
    assert free_memory_bytes(torch.device("cpu")) > 0
    assert total_memory_bytes(torch.device("cpu")) >= free_memory_bytes(torch.device("cpu"))
