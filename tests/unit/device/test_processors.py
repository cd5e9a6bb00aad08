"""Threads: what somebody says, what a run began with, what a quota has time for, and what is fastest beside others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from distillkit.device import processors
from distillkit.device.processors import choose_threads, usable_processors, with_threads


def container(root: Path, quota: str) -> Path:
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").write_text(quota)
    return root


class Machine:
    """A made-up machine: its processors, what others do on them, and how fast products are with so many threads."""

    def __init__(self) -> None:
        self.looked = 0
        self.others = 0.0
        self.paces = {1: 100.0, 2: 190.0, 3: 270.0, 4: 350.0}

    def look(self) -> float:
        self.looked += 1
        return self.others


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processors, "_affinity", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(processors, "_others_work", made.look)
    monkeypatch.setattr(processors, "_pace", lambda count: made.paces[count])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    return made


def test_a_quota_counts_in_whole_processors(tmp_path: Path) -> None:
    running = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert usable_processors(tmp_path) == running
    assert usable_processors(container(tmp_path / "a", "150000 100000")) == min(2, running)
    assert usable_processors(container(tmp_path / "b", "1000 100000")) == 1
    assert usable_processors(container(tmp_path / "c", "max 100000")) == running
    assert usable_processors(container(tmp_path / "d", "99900000 100000")) == running


def test_torch_decides_where_nothing_speaks_against_it(machine: Machine, tmp_path: Path) -> None:
    choice = choose_threads(root=tmp_path)
    assert (choice.count, choice.line(), machine.looked) == (4, "", 1)
    assert choose_threads(computes_here=False, root=tmp_path).count == 4
    assert machine.looked == 1, "where a GPU computes, nobody looks"


def test_no_more_than_the_quota_has_time_for(machine: Machine, tmp_path: Path) -> None:
    choice = choose_threads(root=container(tmp_path, "200000 100000"))
    assert choice.line() == "threads: 2, for the container has the time of so many processors"


def test_fewer_beside_others_where_fewer_are_faster(machine: Machine, tmp_path: Path) -> None:
    machine.others = 2.1
    assert choose_threads(root=tmp_path).count == 4, "measured, and more are faster all the same"
    machine.paces |= {4: 60.0}
    choice = choose_threads(root=tmp_path)
    assert choice.count == 2
    assert choice.line() == (
        "threads: 2, not 4: other processes use 2.1 of 4 processors, and fewer threads are faster now"
    )
    machine.paces |= {2: 90.0}
    assert choose_threads(root=tmp_path).count == 1
    machine.others = 0.1
    assert choose_threads(root=tmp_path).count == 4, "a little work of others is no reason to measure"


def test_what_somebody_says_stays(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.others = 4.0
    root = container(tmp_path, "100000 100000")
    assert choose_threads(3, root=root).line() == "threads: 3, as --threads says"
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert choose_threads(root=root) == processors.ThreadChoice(4)
    assert choose_threads(1, root=root).count == 1, "the flag is nearer than the environment"
    assert machine.looked == 0


def test_a_run_keeps_its_number_or_says_that_it_has_another(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_threads(began_with=4, root=tmp_path) == processors.ThreadChoice(4)
    assert choose_threads(began_with=2, root=tmp_path).line() == "threads: 2, with which this run began"
    machine.others = 3.0
    machine.paces |= {4: 10.0}
    kept = choose_threads(began_with=4, root=tmp_path)
    assert kept.count == 4, "the same student matters more than the time"
    assert "--threads 1 may be faster" in kept.why
    said = "; this run began with 4, so that its last digits may now come out otherwise"
    assert choose_threads(1, 4, root=tmp_path).why == f"as --threads says{said}"
    small = container(tmp_path / "small", "200000 100000")
    machine.others = 0.0
    assert choose_threads(began_with=4, root=small).why == f"for the container has the time of so many processors{said}"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert choose_threads(began_with=4, root=tmp_path).why == f"as the environment says{said}"


def test_a_forked_process_starts_no_threads(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "threads_are_lost", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert choose_threads(8, 2) == processors.ThreadChoice(1)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with with_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with with_threads(before):
        assert torch.get_num_threads() == before


def test_the_real_machine_answers() -> None:
    assert 0 <= processors._others_work() <= len(processors._affinity())
    assert processors._pace(1) > 0
    assert processors._fastest(2, 1.0) in (1, 2)
