"""How process 0 tells the others what comes next: messages in a torch TCPStore, numbered from 0.

Process 0 runs the command as one process would. Where it comes to work that is shared, it says so and all form a group for
the time of that work; in between the others wait, without a time limit: should process 0 be gone, its store is too, or the
launcher ends them all.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from distillkit.errors import DistillkitError, Interrupted, first_line
from distillkit.interrupts import pending
from distillkit.process_state import empty_accelerate_states
from distillkit.processes.group import Group
from distillkit.processes.place import Place

# A process that imports torch from a slow disk takes its time.
_CONNECT = datetime.timedelta(minutes=10)
# In a group the others wait while process 0 scores, writes a checkpoint or a student.
_WAIT = datetime.timedelta(hours=12)
_POLL_SECONDS = 0.1
# What process 0 needs to report an error and to end, at most, before the others take it for gone.
_LAST_WORDS_SECONDS = 20.0
# For the others to read that it is over, where the store goes with process 0.
_FAREWELL_SECONDS = 10.0


class ProcessLostError(DistillkitError):
    """Another process has gone in the middle of shared work (exit code 1)."""


class Channel:
    """The connection of one process with the others.

    Args:
        place: of this process.

    Raises:
        DistillkitError: the others cannot be reached.
    """

    def __init__(self, place: Place) -> None:
        from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

        self.place = place
        self._next = 0
        self._lost = False
        try:
            store = TCPStore(
                place.address,
                place.port,
                is_master=place.leads and not place.hosted,
                timeout=_CONNECT,
                wait_for_workers=False,
            )
        except RuntimeError as error:
            raise DistillkitError(
                f"process {place.rank} of {place.size} cannot reach {place.address}:{place.port}: {first_line(error)}",
                hint="see that the machines reach one another and that the port is free",
            ) from error
        self._store = PrefixStore(f"distillkit/{place.attempt}", store)

    # --- process 0 ---

    @contextlib.contextmanager
    def shared(self, work: str, values: dict[str, Any]) -> Iterator[Group]:
        """All processes work together inside the block.

        Args:
            work: a name in `registry.SHARED_WORK`, which the others run.
            values: JSON, what they need to know.

        Raises:
            DistillkitError: another process failed; the error is its own.
            ProcessLostError: another process has gone.
        """
        number = self._post({"work": work, "values": values})
        try:
            with self.group(number) as group:
                yield group
        except Exception as error:
            if not is_lost_connection(error):
                raise
            self._lost = True
            raise self._what_happened(number) from error

    def end(self, exit_code: int) -> None:
        """Tell the others that the command has ended, with this exit code."""
        self._post({"end": exit_code})
        if self.place.hosted:
            return
        until = time.monotonic() + (_FAREWELL_SECONDS if not self._lost else 1.0)
        waiting = set(range(1, self.place.size))
        while waiting and time.monotonic() < until:
            waiting = {rank for rank in waiting if not self._store.check([f"gone/{rank}"])}
            time.sleep(_POLL_SECONDS / 10 if waiting else 0)

    def _post(self, message: dict[str, Any]) -> int:
        number, self._next = self._next, self._next + 1
        self._store.set(f"message/{number}", json.dumps(message))
        return number

    def _what_happened(self, number: int) -> DistillkitError:
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            for rank in range(1, self.place.size):
                if self._store.check([f"error/{number}/{rank}"]):
                    told = json.loads(self._store.get(f"error/{number}/{rank}"))
                    return DistillkitError(
                        f"process {rank} of {self.place.size}: {told['message']}",
                        hint=told["hint"],
                        exit_code=told["exit_code"],
                    )
            time.sleep(_POLL_SECONDS)
        return ProcessLostError(
            f"one of the {self.place.size} processes has gone: it was killed, or its machine was lost",
            hint="what is saved stays; the run can be continued with as many processes as before, with others, or with one",
        )

    # --- the others ---

    def messages(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """What process 0 says, in order; the last message has the exit code as "end".

        Raises:
            ProcessLostError: process 0 has gone.
        """
        while True:
            number = self._next
            message = self._receive(f"message/{number}")
            self._next, self._lost = number + 1, False
            if "end" in message:
                with contextlib.suppress(RuntimeError):  # process 0 has not waited
                    self._store.set(f"gone/{self.place.rank}", "")
            yield number, message

    def _receive(self, key: str) -> dict[str, Any]:
        signalled: float | None = None
        while True:
            try:
                if self._store.check([key]):
                    return json.loads(self._store.get(key))
            except RuntimeError as error:
                raise ProcessLostError("process 0 has gone") from error
            # Process 0 answers a signal for all. A launcher that has lost it sends one to those who are left.
            number = pending()
            if number is not None or self._lost:
                signalled = signalled or time.monotonic()
                if time.monotonic() - signalled > _LAST_WORDS_SECONDS:
                    raise Interrupted(number) if number is not None else ProcessLostError("process 0 has gone")
            time.sleep(_POLL_SECONDS)

    def report(self, number: int, error: Exception) -> None:
        """Tell process 0 of an error in shared work; it tells the user."""
        known = isinstance(error, DistillkitError)
        told = {
            "message": error.message if known else f"unexpected {type(error).__name__}: {first_line(error)}",
            "hint": error.hint if known else "this is a defect; --debug shows the traceback for a report",
            "exit_code": error.exit_code if known else 1,
        }
        self._lost = True
        self._store.set(f"error/{number}/{self.place.rank}", json.dumps(told))

    def note_lost(self) -> None:
        """The group has broken: process 0 says what comes next, if it is still there."""
        self._lost = True

    # --- all ---

    def _assemble(self, number: int) -> None:
        """Wait until all processes have come to a piece of work.

        Raises:
            ProcessLostError: one does not come.
        """
        self._store.set(f"ready/{number}/{self.place.rank}", "")
        missing, until = set(range(self.place.size)), time.monotonic() + _CONNECT.total_seconds()
        while missing := {rank for rank in missing if not self._store.check([f"ready/{number}/{rank}"])}:
            if time.monotonic() > until:
                raise ProcessLostError(
                    f"process {min(missing)} of {self.place.size} has not answered for {_CONNECT.total_seconds():.0f} s",
                    hint="see whether it still runs; what is saved stays, and the same command continues",
                )
            time.sleep(_POLL_SECONDS / 10)

    @contextlib.contextmanager
    def group(self, number: int) -> Iterator[Group]:
        """The process group of one piece of work, which torch and accelerate see as well."""
        from torch import cuda, distributed
        from torch.distributed import PrefixStore  # pyright: ignore[reportPrivateImportUsage]

        place = self.place
        before = {name: os.environ.get(name) for name in place.variables()}
        os.environ.update(place.variables())
        empty_accelerate_states()
        if cuda.is_available() and place.local_rank < cuda.device_count():
            cuda.set_device(place.local_rank)
        try:
            self._assemble(number)
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo",
                store=PrefixStore(f"group/{number}", self._store), rank=place.rank, world_size=place.size, timeout=_WAIT,
            )  # fmt: skip
            yield Group(place.rank, place.size)
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()
            empty_accelerate_states()
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error of torch says that another process does not answer any more."""
    from torch.distributed import DistError

    if isinstance(error, DistError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        word in words for word in ("gloo", "nccl", "connection closed", "broken pipe")
    )


_current: Channel | None = None


def current() -> Channel | None:
    """The connection of this process with others; None where it is the only one."""
    return _current


@contextlib.contextmanager
def connected(place: Place) -> Iterator[Channel]:
    """Inside, this process is one of several."""
    global _current
    # Read when torch is loaded: DDP and the store would print advice and every connection that ends.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    channel = Channel(place)
    _current = channel
    try:
        yield channel
    finally:
        _current = None
