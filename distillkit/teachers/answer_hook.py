"""A program of the user's own that says which answers are kept: `--keep-answers 'run:COMMAND'`.

It is started once. For every answer it gets a line with a JSON object on its standard input,

    {"prompt": [{"role": "user", "content": "6 * 7?"}], "answer": "42", "known_answer": "It is 42.", "finish": "eos"}

and says `keep` or `drop`, with a reason behind it if it likes, in one line on its standard output. It ends when its input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

from distillkit.errors import DistillkitError, PreconditionError
from distillkit.interrupts import check_interrupted

ANSWER_SECONDS = 300.0
"""How long it has for one answer; it may ask a model of its own."""

_END_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_LONGEST_SHOWN = 200
_PROTOCOL = "it reads one JSON object per line and answers each with one line: keep or drop, and a reason if it likes"


def find_command(words: Sequence[str]) -> None:
    """Refuse a command that is not there, before anything is computed.

    Raises:
        PreconditionError: no such program.
    """
    if shutil.which(words[0]) is None:
        raise PreconditionError(
            f"--keep-answers: there is no program {words[0]!r}",
            hint="give a command that a terminal in this folder can start",
        )


class AnswerHook:
    """The program, which runs until the block ends.

    Args:
        words: the command.
        seconds: for one answer.

    Raises:
        PreconditionError: it cannot be started.
        DistillkitError: on leaving the block, it ended with an error.
    """

    def __init__(self, words: Sequence[str], seconds: float = ANSWER_SECONDS) -> None:
        self._name = " ".join(words)[:_LONGEST_SHOWN]
        self._seconds = seconds
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the program
        try:
            self._process = subprocess.Popen(
                list(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                # A Python program would otherwise keep its answers until it has some kilobytes of them.
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
                # Ctrl-C is for this program, which then ends the other's input.
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._errors.close()
            raise PreconditionError(
                f"--keep-answers: {self._name} cannot be started: {error.strerror or error}",
                hint="give a command that a terminal in this folder can start",
            ) from error
        # Neither reading nor writing may block the loop that looks at signals and at the clock.
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._write, daemon=True).start()

    def __enter__(self) -> AnswerHook:
        return self

    def __exit__(self, kind: object, *unused: object) -> None:
        try:
            if kind is None:
                self._end()
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._asked.put(None)
            self._errors.close()

    def judge(self, question: dict[str, Any]) -> tuple[bool, str]:
        """Whether an answer is kept, and the reason that was given, "" for none.

        Raises:
            DistillkitError: the program ended, said nothing in time, or something else than keep or drop.
            Interrupted: a signal arrived.
        """
        if not self._said.empty():
            self._refuse_line(self._said.get(), "before it was asked again")
        self._asked.put(json.dumps(question, ensure_ascii=False) + "\n")
        line = self._next_line(time.monotonic() + self._seconds)
        if line is None:
            raise self._ended()
        verdict, _, reason = line.strip().partition(" ")
        if verdict not in ("keep", "drop"):
            self._refuse_line(line, "instead of keep or drop")
        return verdict == "keep", reason.strip()

    # --- the other side --------------------------------------------------------------------------------------------

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with stream:
            for line in stream:
                self._said.put(line.decode("utf-8", "replace"))
        self._said.put(None)

    def _write(self) -> None:
        stream = self._process.stdin
        assert stream is not None
        # A program that has ended is noticed where its answer is missed.
        with contextlib.suppress(OSError, ValueError):
            while (line := self._asked.get()) is not None:
                stream.write(line.encode("utf-8"))
                stream.flush()
        with contextlib.suppress(OSError, ValueError):
            stream.close()

    def _next_line(self, deadline: float) -> str | None:
        while True:
            check_interrupted()
            try:
                return self._said.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if time.monotonic() > deadline:
                    raise DistillkitError(
                        f"--keep-answers: {self._name} said nothing within {self._seconds:g} s",
                        hint=f"{_PROTOCOL}; let it flush its output after every line",
                    ) from None

    def _end(self) -> None:
        """End its input and wait for it; one that goes on after that is stopped."""
        self._asked.put(None)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return
        while (line := self._next_line(time.monotonic() + _END_SECONDS)) is not None:
            self._refuse_line(line, "after its last answer")
        if self._process.returncode != 0:
            raise self._ended()

    def _ended(self) -> DistillkitError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        last = f": {lines[-1].strip()[:_LONGEST_SHOWN]}" if lines else ""
        status = self._process.returncode
        how = "closed its output" if status is None else f"ended with status {status}"
        return DistillkitError(f"--keep-answers: {self._name} {how} before it was done{last}", hint=_PROTOCOL)

    def _refuse_line(self, line: str | None, when: str) -> None:
        if line is None:
            raise self._ended()
        raise DistillkitError(
            f"--keep-answers: {self._name} said {line.strip()[:_LONGEST_SHOWN]!r} {when}", hint=_PROTOCOL
        )
