"""File systems without fsync of folders, without locks, or that cannot rename folders: said once, and the run is the same."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from io_injection import Done, Fault, FileSystem
from small_runs import Scene, prepare_command


@pytest.fixture(scope="module")
def scene(workshop: Any) -> Scene:
    """A training with its checkpoints and exports."""
    return workshop.scene("off")


def warnings_of(done: Done) -> list[str]:
    return [line for line in done.said.splitlines() if line.startswith("warning:")]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP])
def test_what_cannot_be_made_durable_is_said_once(workshop: Any, scene: Scene, error: int) -> None:
    done = workshop.play(scene, file_system=FileSystem(folder_sync=error, file_sync=error))
    assert done.code == 0, done.said
    assert len(warnings_of(done)) == 2
    assert all("durable" in line and os.strerror(error) in line for line in warnings_of(done))
    assert workshop.differences(scene) == []


def test_an_error_of_the_disk_is_no_weakness(workshop: Any, scene: Scene) -> None:
    done = workshop.play(scene, Fault(1, "persistent", errno.EIO, kinds=("fsync",)))
    assert done.code == 1
    assert "Input/output error" in done.said


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_stands_for_the_lock(workshop: Any, scene: Scene, error: int) -> None:
    system = FileSystem(lock=error)
    done = workshop.play(scene, file_system=system)
    assert done.code == 0, done.said
    assert [".lock.held stands for the lock" in line for line in warnings_of(done)] == [True]
    # Nothing is left of it, nor does the lock file of a system with locks stand in its way.
    assert not list(workshop.output.rglob("*.held"))
    assert workshop.again(scene, file_system=system).code == 0
    assert workshop.again(scene).code == 0


def test_two_at_once_are_refused_and_the_dead_are_not_waited_for(workshop: Any, scene: Scene) -> None:
    system = FileSystem(lock=errno.ENOLCK)
    killed = workshop.play(scene, Fault(20, "kill"), file_system=system)
    assert killed.code == -9
    (held,) = workshop.output.rglob("run/.lock.held")
    left = held.read_text()
    # Of a process that runs: this one. Which it is, the lock file of the library itself says.
    import filelock

    held.unlink()
    with filelock.SoftFileLock(held):
        refused = workshop.again(scene, file_system=system)
    assert refused.code == 3
    assert "is in use by process" in refused.said
    assert "Traceback" not in refused.said
    # Of another machine, on which nobody can look whether it still runs.
    held.write_text(left.replace(socket.gethostname(), "another-machine"))
    refused = workshop.again(scene, file_system=system)
    assert refused.code == 3
    assert f"remove {held}" in refused.said
    # Of a process on this machine that is gone.
    held.write_text(left)
    done = workshop.again(scene, file_system=system)
    assert done.code == 0, done.said
    assert workshop.differences(scene) == []


def test_folders_that_cannot_be_renamed(workshop: Any) -> None:
    """As in a container whose image holds the run."""
    command = prepare_command(workshop.models, workshop.output, **workshop.settings)
    prepared = workshop.scene("prepare-data")
    assert workshop.play(prepared).code == 0
    done = workshop.program.run([*command, "--force"], file_system=FileSystem(folder_rename=errno.EXDEV))
    assert done.code == 0, done.said
    assert any("cannot rename" in line for line in warnings_of(done))
    assert workshop.differences(prepared) == []


def test_the_lock_of_a_cache(tmp_path: Path) -> None:
    """`Lock` itself, where there are locks: two of them exclude each other, in both kinds."""
    import filelock

    from distillkit.locks import Lock

    first, second = Lock(tmp_path / "a.lock"), Lock(tmp_path / "a.lock")
    with first, pytest.raises(filelock.Timeout):
        second.acquire(0)
    with second:
        assert not json.dumps(sorted(path.name for path in tmp_path.iterdir())).count("held")
