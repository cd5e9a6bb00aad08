"""The real command line in a process of its own, forked from a server that has imported the libraries already.

Importing torch and transformers takes seconds; a fork takes milliseconds. The child is what the console script is, with
its own streams, signals and exit status; besides, a signal can arrive at a chosen call of a chosen function.
"""

from __future__ import annotations

import contextlib
import functools
import gc
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

# What the stages import, so that a child finds it in memory.
_PRELOADED = (
    "datasets", "accelerate", "torch._dynamo", "distillkit.cli.app", "distillkit.cli.commands", "distillkit.selftests.runner", "distillkit.reports.plots",
    "distillkit.stages.check_env", "distillkit.stages.prepare_data", "distillkit.stages.distill", "distillkit.stages.validate",
    "distillkit.stages.demo", "distillkit.stages.plot", "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.auto.tokenization_auto", "transformers.convert_slow_tokenizer", "transformers.generation.utils",
    "transformers.integrations.mistral", "matplotlib.style", "PIL.JpegImagePlugin",
)  # fmt: skip


CLOSED = "closed"


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

    def __init__(self, server: ForkedCli, pid: int, streams: Mapping[str, Path]) -> None:
        self.server, self.pid, self.streams = server, pid, streams

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> Done:
        status = self.server.ask(wait=self.pid)["status"]
        written = {
            name: path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
            for name, path in self.streams.items()
        }
        return Done(os.waitstatus_to_exitcode(status), **written)


class ForkedCli:
    """The server.

    Args:
        folder: for the children's output.
        environment: of the server and, unless a child is given more, of its children.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._children = 0
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment)
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("the server has pipes")
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise AssertionError("the server has ended")
        return json.loads(answer)

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
        answer = self.ask(
            arguments=[str(argument) for argument in arguments],
            signals=None if signals is None else [signals.at, signals.call, [int(n) for n in signals.numbers]],
            values=dict(values or {}), environment=dict(environment or {}), cwd=str(cwd) if cwd else None,
            **{name: CLOSED if name in closed else str(path) for name, path in streams.items()},
        )  # fmt: skip
        return Child(self, answer["pid"], streams)

    def run(self, *arguments: object, **options: Any) -> Done:
        """`start` and wait for the end."""
        return self.start(*arguments, **options).wait()

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextlib.contextmanager
def forked_cli(folder: Path, **variables: str) -> Iterator[ForkedCli]:
    """A server that asks no hub and has one thread for each child."""
    import distillkit

    folder.mkdir(parents=True, exist_ok=True)
    fixed = {
        "PYTHONPATH": str(Path(distillkit.__file__).resolve().parents[1]), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    server = ForkedCli(folder, {**os.environ, **fixed, **variables})
    try:
        yield server
    finally:
        server.close()


# --- in the server ---------------------------------------------------------------------------------------------------


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


def _stream_to(name: str) -> int:
    if name != CLOSED:
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def _child(request: Mapping[str, Any]) -> None:
    """Become the console script."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(_stream_to(request[name]), descriptor)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(request["environment"])
    if request["cwd"]:
        os.chdir(request["cwd"])
    for place, value in request["values"].items():
        setattr(*_owner(place), value)
    if request["signals"]:
        _signal_at(*request["signals"])
    sys.argv = ["distillkit", *request["arguments"]]
    from distillkit.__main__ import main

    code = 1
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
        # As the interpreter does at its end.
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        try:
            sys.stdout.flush()
        except OSError:
            code = 120
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(code)


def _serve() -> None:
    for name in _PRELOADED:
        importlib.import_module(name)
    # Or the first collection of every child would copy all of this memory.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = {"status": os.waitpid(request["wait"], 0)[1]}
        else:
            pid = os.fork()
            if pid == 0:
                _child(request)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
