"""The real command line in a process of its own that is there in a moment, see warm_python.py.

The child is what the console script is, with its own streams, signals and exit status; besides, a signal can arrive at a
chosen call of a chosen function, and constants of the program can be others.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import warm_python

_PROGRAM = f"""
import json, sys
sys.path.append({str(Path(__file__).parent)!r})
import forked_cli
sys.argv = ["distillkit", *forked_cli.prepared(sys.argv[1:])]
from distillkit.__main__ import main
main()
"""


@dataclass(frozen=True)
class Signals:
    """Signals that arrive in the child when it enters a function for the n-th time.

    Attributes:
        at: "module:name" or "module:Class.method".
        call: the how manieth call, from 1.
        numbers: the signals, one right after the other.
    """

    at: str
    call: int = 1
    numbers: tuple[int, ...] = (signal.SIGINT,)


@dataclass(frozen=True)
class Done:
    """How a child ended: its exit code (negative: the signal that killed it) and what it wrote."""

    code: int
    out: str
    err: str


class Child:
    """A child that runs."""

    def __init__(self, process: warm_python.Popen, streams: Mapping[str, Path]) -> None:
        self._process, self.streams = process, streams
        self.pid = process.pid

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> Done:
        code = self._process.wait()
        written = {
            name: path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
            for name, path in self.streams.items()
        }
        return Done(code, **written)


class ForkedCli:
    """The command line.

    Args:
        folder: for the children's output.
        environment: of the children, unless one is given more.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self._children = 0

    def start(
        self,
        *arguments: object,
        signals: Signals | None = None,
        values: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        closed: Sequence[str] = (),
    ) -> Child:
        """Begin `distillkit ARGUMENTS`.

        Args:
            values: "module:NAME" -> another value of a constant, so that small runs have many parts.
            closed: the streams, "out" and "err", whose reader has gone.
        """
        self._children += 1
        streams = {name: self.folder / f"{self._children}.{name}" for name in ("out", "err")}
        changes = {
            "signals": None if signals is None else [signals.at, signals.call, [int(n) for n in signals.numbers]],
            "values": dict(values or {}),
        }
        opened = [_opened(None if name in closed else path) for name, path in streams.items()]
        try:
            process = warm_python.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(changes), *map(str, arguments)],
                env={**self.environment, **(environment or {})}, cwd=cwd, stdin=subprocess.DEVNULL,
                stdout=opened[0], stderr=opened[1],
            )  # fmt: skip
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return Child(process, streams)

    def run(self, *arguments: object, **options: Any) -> Done:
        """`start` and wait for the end."""
        return self.start(*arguments, **options).wait()


@contextlib.contextmanager
def forked_cli(folder: Path, **variables: str) -> Iterator[ForkedCli]:
    """A command line that asks no hub."""
    import distillkit

    folder.mkdir(parents=True, exist_ok=True)
    fixed = {
        "PYTHONPATH": str(Path(distillkit.__file__).resolve().parents[1]), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    environment = {**os.environ, **fixed, **variables}
    yield ForkedCli(folder, environment)
    warm_python.close(environment)


def _opened(path: Path | None) -> int:
    """A descriptor that a file is written through, or, without one, a pipe that nobody reads."""
    if path is not None:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    reading, writing = os.pipe()
    os.close(reading)
    return writing


# --- in the child ----------------------------------------------------------------------------------------------------


def prepared(words: Sequence[str]) -> list[str]:
    """Make the changes that the first word describes; the others are the arguments of the command line."""
    changes = json.loads(words[0])
    for place, value in changes["values"].items():
        setattr(*_owner(place), value)
    if changes["signals"]:
        _signal_at(*changes["signals"])
    return list(words[1:])


def _owner(place: str) -> tuple[Any, str]:
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name


def _signal_at(place: str, call: int, numbers: Sequence[int]) -> None:
    owner, name = _owner(place)
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            for number in numbers:
                os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    setattr(owner, name, counted)
