"""Threads follow the time that a container has, unless somebody has said how many there are to be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from distillkit.device.processors import threads_within_quota, usable_processors


def container(root: Path, quota: str) -> Path:
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").write_text(quota)
    return root


def test_a_quota_counts_in_whole_processors(tmp_path: Path) -> None:
    running = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert usable_processors(tmp_path) == running
    assert usable_processors(container(tmp_path / "a", "150000 100000")) == min(2, running)
    assert usable_processors(container(tmp_path / "b", "1000 100000")) == 1
    assert usable_processors(container(tmp_path / "c", "max 100000")) == running
    assert usable_processors(container(tmp_path / "d", "99900000 100000")) == running


def test_threads_within_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    said: list[str] = []
    root = container(tmp_path, "100000 100000")
    try:
        torch.set_num_threads(3)
        with threads_within_quota(said.append, root):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        assert said == ["threads: 1 instead of 3, for the container has the time of so many processors"]
        with threads_within_quota(said.append, tmp_path / "no container"):
            assert torch.get_num_threads() == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        with threads_within_quota(said.append, root):
            assert torch.get_num_threads() == 3
        assert len(said) == 1
    finally:
        torch.set_num_threads(threads)
