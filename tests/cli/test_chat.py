"""`distillkit chat` as a person and as a script use it: real processes, a real terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import warm_python
from json_objects import problems

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def trained(distil: Callable[..., Any]) -> Path:
    return Path(distil(skip_demo=True).run_directory)


def test_a_pipe_gets_one_object_for_each_line(run_cli: Run, trained: Path) -> None:
    done = run_cli("chat", "--run", trained, "--json", "--new-tokens", "6", input="Where?\nWhen?\n")
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [item["question"] for item in said] == ["Where?", "When?"]
    assert all(item["tokens"] <= 6 for item in said)
    assert [problems(item) for item in said] == [[], []]
    assert "has no chat template" in done.stderr


@pytest.mark.parametrize("who", ["teacher", "before", "after"])
def test_each_model_can_be_asked(who: str, run_cli: Run, trained: Path) -> None:
    done = run_cli("chat", "--run", trained, "--with", who, "--new-tokens", "4", "--temperature", "0", input="Where?\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")


def test_what_cannot_be_is_refused_in_one_line(run_cli: Run, trained: Path, tmp_path: Path) -> None:
    nobody = run_cli("chat", "--run", trained, "--with", "nobody", input="")
    assert nobody.returncode == 2
    assert "teacher, before, after" in nobody.stderr
    cold = run_cli("chat", "--run", trained, "--top-p", "0", input="")
    assert cold.returncode == 2
    none = run_cli("chat", "--run", tmp_path / "nowhere", input="")
    assert none.returncode in (2, 3)
    assert "Traceback" not in nobody.stderr + cold.stderr + none.stderr


def test_a_person_types_and_leaves(cli_env: Callable[..., dict[str, str]], trained: Path) -> None:
    command = [sys.executable, "-m", "distillkit", "chat", "--run", str(trained), "--new-tokens", "5"]
    with _Terminal(command, cli_env()) as terminal:
        terminal.until("/reset: begin a new conversation")
        terminal.until("> ")
        terminal.type("Where is it?")
        terminal.until("> ")
        terminal.type("/reset")
        terminal.until("a new conversation")
        terminal.until("> ")
        terminal.type("/nothing")
        terminal.until("/quit: end")
        terminal.type("/quit")
        assert terminal.process.wait(timeout=120) == 0
        assert "Traceback" not in terminal.seen


class _Terminal:
    """A process in a terminal of its own."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.ours, theirs = pty.openpty()
        self.process = warm_python.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        self.seen = self._unread = ""

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def type(self, line: str) -> None:
        os.write(self.ours, f"{line}\n".encode())

    def until(self, wanted: str, seconds: float = 180) -> None:
        """Read on until the terminal has shown a text."""
        deadline = time.monotonic() + seconds
        while wanted not in self._unread:
            ready, _, _ = select.select([self.ours], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"no {wanted!r} in {self._unread!r}")
            read = os.read(self.ours, 4096).decode("utf-8", "replace")
            self.seen += read
            self._unread += read
        self._unread = self._unread.split(wanted, 1)[1]
