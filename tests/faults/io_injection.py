"""Run the command line, again and again, with one fault each time: SQLite's way of testing I/O errors.

A process that has the libraries loaded already, and `io_injection.c` in front of the C library, forks a child for every
command. The child is the real program; its Nth call that changes anything below a folder (open for writing, write,
fsync, rename, mkdir, truncate, unlink, utime) fails with an errno, once or from then on, or is its last one: `kill -9`
there, in the middle of a write, or a power cut, after which what was not fsynced is gone.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import fcntl
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
KINDS = {"open": 1, "write": 2, "fsync": 4, "rename": 8, "mkdir": 16, "truncate": 32, "remove": 64, "touch": 128}
MODES = {"once": 0, "persistent": 1, "kill": 2, "power cut": 3}


@dataclass(frozen=True)
class Fault:
    """What happens to a command.

    Attributes:
        at: at which call, counted from 1; 0 for none.
        mode: "once", "persistent", "kill" or "power cut".
        error: the errno of a failure.
        match: only calls whose path contains this are counted.
        kinds: only calls of these kinds are counted; none for all.
    """

    at: int
    mode: str = "once"
    error: int = errno.ENOSPC
    match: str = ""
    kinds: tuple[str, ...] = ()

    def __str__(self) -> str:
        error = "" if self.mode in ("kill", "power cut") else f" {errno.errorcode[self.error]}"
        where = f" of {'/'.join(self.kinds)} {self.match}" if self.match or self.kinds else ""
        return f"{self.mode}{error} at call {self.at}{where}"


@dataclass(frozen=True)
class FileSystem:
    """What the file system below the root does not have: the errno of each call, 0 where it has it.

    Attributes:
        folder_sync, file_sync: fsync.
        lock: flock.
        folder_rename: renaming a folder, those excepted that were just made.
    """

    folder_sync: int = 0
    file_sync: int = 0
    lock: int = 0
    folder_rename: int = 0


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Attributes:
        code: the exit code; -9 after SIGKILL.
        said, out: stderr and stdout.
        calls: how many calls were counted.
        fired: whether the fault happened, at `what`.
    """

    code: int
    said: str
    out: str
    calls: int
    fired: bool
    what: str
    seconds: float


def compiler() -> str | None:
    """A C compiler, which this needs, or None."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def build(folder: Path) -> Path:
    """Compile the library."""
    library = folder / "io_injection.so"
    subprocess.run(
        [str(compiler()), "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "io_injection.c"), "-ldl"],
        check=True, capture_output=True,
    )  # fmt: skip
    return library


class Program:
    """The program, ready to be started with faults.

    Args:
        folder: for the library and for what the commands say.
        root: the folder whose calls count; no other is ever made to fail.
        environment: of the program.

    Attributes:
        can_fail: whether calls can be made to fail, for which a C compiler is needed.
    """

    def __init__(self, folder: Path, root: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.root = folder, root
        self.can_fail = compiler() is not None
        variables = {**environment, "OMP_NUM_THREADS": "1"}
        if self.can_fail:
            variables["LD_PRELOAD"] = str(build(folder))
        paths = [str(HERE), str(HERE.parent), environment.get("PYTHONPATH", "")]
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "io_injection"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=variables,
            text=True,
        )

    def run(
        self, command: list[str], fault: Fault | None = None, *, constants: Mapping[str, Any] | None = None,
        limit: int | None = None, kill_after: float | None = None, timeout: float = 120,
        file_system: FileSystem | None = None,
    ) -> Done:  # fmt: skip
        """Run the command line in a child.

        Args:
            constants: "module.name" of the program to the value it has in this child; "@module.name" is what has that name.
            limit: no file may become larger than so many bytes (RLIMIT_FSIZE).
            kill_after: SIGKILL after so many seconds.
            file_system: what it lacks, for the whole command.
        """
        assert self.can_fail or (fault is None and file_system is None)
        fault = fault or Fault(0)
        kinds = sum(KINDS[kind] for kind in fault.kinds) or 255
        task = {
            "command": command, "root": str(self.root), "match": fault.match, "kinds": kinds, "at": fault.at,
            "mode": MODES[fault.mode], "error": fault.error, "constants": dict(constants or {}), "limit": limit,
            "kill_after": kill_after, "timeout": timeout,
            "file_system": list(dataclasses.astuple(file_system)) if file_system is not None else [0, 0, 0, 0],
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Done(**answer)

    def close(self) -> None:
        self._process.communicate(timeout=60)


# --- in the process that forks ---------------------------------------------------------------------------------------


class _NoFaults:
    """Stands for the library where there is none."""

    def __init__(self) -> None:
        self.fault_arm = _nothing()
        self.fault_disarm = self.fault_file_system = _nothing()
        self.fault_calls = self.fault_fired = _nothing(0)
        self.fault_what = _nothing(b"")


def _nothing(result: Any = None) -> Any:
    def call(*_: Any) -> Any:
        return result

    return call


def _child(task: dict[str, Any], library: Any, pipes: dict[str, tuple[int, int]]) -> None:
    """The program, to its end."""
    for number, pipe in ((1, pipes["out"]), (2, pipes["said"])):
        os.dup2(pipe[1], number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    for name, value in task["constants"].items():
        module, attribute = name.rsplit(".", 1)
        found = importlib.import_module(module)
        if not hasattr(found, attribute):
            raise AttributeError(name)
        if isinstance(value, str) and value.startswith("@"):
            other, name = value[1:].rsplit(".", 1)
            value = getattr(importlib.import_module(other), name)
        setattr(found, attribute, value)
    if task["limit"] is not None:
        import resource

        # Python ignores the signal of this limit, so that writing fails with EFBIG.
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["limit"], resource.RLIM_INFINITY))
    from distillkit.cli import main as cli

    library.fault_arm(
        task["root"].encode(), task["match"].encode(), task["kinds"], task["at"], task["mode"], task["error"]
    )
    library.fault_file_system(*task["file_system"])
    try:
        code = cli.main(task["command"])
    finally:
        library.fault_disarm()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _pipe() -> tuple[int, int]:
    """Large enough for all that a command says. A file would be subject to the limit of RLIMIT_FSIZE."""
    pipe = os.pipe()
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 1 << 20)
    return pipe


def _content(pipe: tuple[int, int]) -> str:
    os.close(pipe[1])
    with os.fdopen(pipe[0], encoding="utf-8", errors="replace") as stream:
        return stream.read()


def _wait(pid: int, task: dict[str, Any]) -> int:
    began = time.monotonic()
    kill_after = task["kill_after"]
    deadline = task["timeout"] if kill_after is None else kill_after
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - began > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -9 if kill_after is not None else -99
        time.sleep(0.002)


def warm_up() -> None:
    """Once here instead of once in every child: what `warm_python` has in memory, and what there is for Python to collect."""
    import torch
    import tqdm
    import warm_python

    warm_python.warm_up()
    torch.set_num_threads(1)
    # Its own lock is one of all forked processes: one that is killed while it has it would stop the others for good.
    os.register_at_fork(after_in_child=lambda: tqdm.tqdm.set_lock(threading.RLock()))
    gc.collect()
    gc.freeze()


def _serve() -> None:
    library: Any = ctypes.CDLL(None) if os.environ.get("LD_PRELOAD") else _NoFaults()
    library.fault_arm.argtypes = [
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_int,
    ]
    library.fault_calls.restype = library.fault_fired.restype = ctypes.c_long
    library.fault_what.restype = ctypes.c_char_p
    os.environ.pop("LD_PRELOAD", None)  # What the program starts in turn is not disturbed.
    warm_up()
    for line in sys.stdin:
        task = json.loads(line)
        library.fault_arm(b"/nowhere", b"", 0, 0, 0, 0)
        began = time.monotonic()
        pipes = {name: _pipe() for name in ("out", "said")}
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                _child(task, library, pipes)
            except BaseException:
                import traceback

                traceback.print_exc()
                sys.stderr.flush()
            os._exit(code)
        code = _wait(pid, task)
        answer = {
            **{name: _content(pipe) for name, pipe in pipes.items()},
            "code": code, "calls": library.fault_calls(), "fired": bool(library.fault_fired()),
            "what": library.fault_what().decode(), "seconds": round(time.monotonic() - began, 3),
        }  # fmt: skip
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
