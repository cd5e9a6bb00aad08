"""Freed memory stays in the process while models compute, and goes back afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distillkit.device import malloc

SCRIPT = """
import resource, torch
from distillkit.device.malloc import freed_memory_kept, trim_heap

def faults(times=60):
    torch.empty(6 << 20, dtype=torch.uint8).fill_(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(6 << 20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

plain = resident()
with freed_memory_kept():
    kept = faults()
    blocks = [torch.empty(6 << 20, dtype=torch.uint8).fill_(1) for _ in range(20)]
    del blocks
    inside = resident() - plain
    trim_heap()
    dropped = resident() - plain
    blocks = [torch.empty(6 << 20, dtype=torch.uint8).fill_(1) for _ in range(20)]
    del blocks
print(kept, inside, dropped, resident() - plain)
"""


def run(**environment: str) -> list[int]:
    import os

    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=clean | environment
    )
    return [int(number) for number in done.stdout.split()]


@pytest.mark.skipif(malloc._glibc() is None, reason="the C library is not glibc, or tuned")
def test_memory_is_kept_and_given_back() -> None:
    kept, inside, dropped, after = run()
    # 1536 pages for each of sixty tensors, if they were all fresh. Aligned blocks need some room to fit again: how many are
    # fresh until there is, five to eleven were seen, depends on what else lies in the heap.
    assert kept < 30_000
    assert inside > 100e6
    assert dropped < 30e6
    assert after < 30e6


@pytest.mark.skipif(malloc._glibc() is None, reason="the C library is not glibc, or tuned")
def test_what_the_user_has_tuned_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="1000000")[0] > 60_000
    for name, value in (("MALLOC_ARENA_MAX_", "2"), ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")):
        monkeypatch.setenv(name, value)
        assert malloc._glibc() is None
        monkeypatch.delenv(name)
