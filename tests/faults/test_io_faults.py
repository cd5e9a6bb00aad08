"""Every call that writes may fail: the command says so in one line, and the same command then brings the same result.

Each case is one command with one fault (no space left or an input/output error, once or from then on) at its Nth call
that changes anything below the output directory, and then the same command undisturbed. With N = 1, 2, … to the end
that is thousands of cases and takes hours, so here N is a sample: the first calls, then every so many. All of them:

    FAULT_LOOP=1 pytest --timeout=0 tests/faults/test_io_faults.py      (FAULT_LOOP=7: every seventh)

With that variable the process is also killed at each of these calls, and has its power cut (test_kills.py).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest

# How many calls of each command are made to fail here, of the 30 to 700 that it makes.
SAMPLE = {"prepare-data": 6, "exact": 5, "sparse": 3, "black": 4, "control": 2, "validate": 3, "demo": 2, "plot": 2}


def cases(name: str, calls: int) -> Iterator[tuple[int, str, int]]:
    """(N, mode, errno): all four failures at every Nth of `FAULT_LOOP`, or a sample that takes them in turn."""
    from fault_loop import FAILURES

    stride = int(os.environ.get("FAULT_LOOP", "0"))
    if stride:
        kills = (("kill", 0), ("power cut", 0))
        yield from ((at, mode, error) for at in range(1, calls + 1, stride) for mode, error in (*FAILURES, *kills))
        return
    count = SAMPLE[name]
    places = {1, calls, *(1 + (2 * index + 1) * calls // (2 * count) for index in range(count - 2))}
    for index, at in enumerate(sorted(places)):
        mode, error = FAILURES[index % len(FAILURES)]
        yield at, mode, error


@pytest.mark.parametrize("name", SAMPLE)
def test_any_write_may_fail(workshop: Any, name: str) -> None:
    from fault_loop import judge
    from io_injection import Fault

    scene = workshop.scene(name)
    assert scene.calls > 15
    problems: list[str] = []
    met = 0
    for at, mode, error in cases(name, scene.calls):
        verdict = judge(workshop, scene, Fault(at, mode, error))
        problems += verdict.problems
        met += verdict.done.fired
    assert not problems, "\n".join(problems)
    assert met > 1
    # One call further than the last there is nothing left that could fail.
    beyond = judge(workshop, scene, Fault(scene.calls + 20, "persistent", errno.EIO))
    assert not beyond.done.fired
    assert beyond.done.code == 0
    assert not beyond.problems


def test_the_loop_sees_what_is_wrong(workshop: Any) -> None:
    """The negative control: with a program that leaves its temporary files, or ends with a defect, there are problems."""
    from dataclasses import replace

    from fault_loop import judge
    from io_injection import Fault

    scene = workshop.scene("prepare-data")
    careless = replace(
        scene, constants={"distillkit.storage.TEMPORARY_PREFIX": "half-", "distillkit.storage._FULL": ()}
    )
    found = judge(workshop, careless, Fault(1, "persistent", errno.ENOSPC)).problems
    assert any("does not say that the disk is full" in words for words in found), found
    expected = {**scene.after, "run/data/test/data-00000-of-00001.arrow": "other bytes"}
    found = judge(workshop, replace(scene, after=expected), Fault(60, "once", errno.EIO)).problems
    assert any("left something else: ['run/data/test" in words for words in found), found
