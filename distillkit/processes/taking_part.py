"""What each of several processes does with a command: process 0 runs it, the others help where it asks them to."""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from distillkit import registry
from distillkit.console import Console
from distillkit.errors import DistillkitError, UsageError
from distillkit.interrupts import graceful_signals
from distillkit.processes.channel import Channel, ProcessLostError, connected, current, is_lost_connection
from distillkit.processes.group import ALONE, Group, LeaderFailedError
from distillkit.processes.place import Place


def take_part(place: Place, command: Callable[[], int], *, debug: bool = False) -> int:
    """Run a command as one of several processes.

    Args:
        command: the whole command, which reports its own errors; run in process 0 alone.
        debug: whether the others show the traceback of an error of theirs, which process 0 cannot.

    Returns:
        The exit code, the same in all processes.

    Raises:
        DistillkitError: the others cannot be reached, or process 0 has gone.
    """
    with connected(place) as channel:
        if not place.leads:
            return follow(channel, debug=debug)
        code = 1
        try:
            code = command()
        finally:
            channel.end(code)
        return code


@contextlib.contextmanager
def together(work: str, values: Callable[[], dict[str, Any]]) -> Iterator[Group]:
    """All processes work together inside the block; alone where there is only this one.

    Args:
        work: a name in `registry.SHARED_WORK`, which the others run.
        values: gives what they need to know, as JSON.

    Raises:
        DistillkitError: another process failed, or has gone.
    """
    channel = current()
    if channel is None:
        yield ALONE
        return
    with channel.shared(work, values()) as group:
        yield group


Share = Callable[[list[int]], contextlib.AbstractContextManager[Group]]
"""Opens the group of those who do some numbered pieces of work."""


def unshared(numbers: list[int]) -> contextlib.AbstractContextManager[Group]:
    """This process does them all."""
    return contextlib.nullcontext(ALONE)


def process_count() -> int:
    """How many processes work together where the work is shared."""
    channel = current()
    return 1 if channel is None else channel.place.size


def leads() -> bool:
    """Whether this process leads the others, or is the only one."""
    channel = current()
    return channel is None or channel.place.leads


def check_devices(kind: str) -> None:
    """Refuse more processes than this machine has GPUs.

    Args:
        kind: of the device that is computed on, such as "cuda".

    Raises:
        UsageError: there are too few.
    """
    channel = current()
    if channel is None or kind != "cuda":
        return
    import torch

    wanted, there = channel.place.local_size, torch.cuda.device_count()
    if wanted > there:
        raise UsageError(
            f"{wanted} processes on this machine, which has {there} GPUs", hint=f"start {there}, or add --no-cuda"
        )


def follow(channel: Channel, *, debug: bool = False) -> int:
    """Do what process 0 asks for until the command has ended; gives its exit code.

    Args:
        debug: as for `take_part`.

    Raises:
        DistillkitError: process 0 has gone.
    """
    with graceful_signals():
        failure: DistillkitError | None = None
        try:
            for number, message in channel.messages():
                if "end" in message:
                    return int(message["end"])
                failure = _help(channel, number, message, debug)
        except ProcessLostError:
            # Nobody but this process can tell the user what went wrong in it.
            if failure is not None:
                raise failure from None
            raise
    raise AssertionError("the last message has an exit code")


def _help(channel: Channel, number: int, message: dict[str, Any], debug: bool) -> DistillkitError | None:
    """One piece of shared work; gives the error of this process, of which process 0 has been told."""
    try:
        with channel.group(number) as group:
            registry.resolve(registry.SHARED_WORK, message["work"])(message["values"], group, mute_console())
    except LeaderFailedError:
        channel.note_lost()
    except Exception as error:
        if is_lost_connection(error):
            channel.note_lost()
            return None
        if debug:
            traceback.print_exc()
        channel.report(number, error)
        return error if isinstance(error, DistillkitError) else DistillkitError(f"{type(error).__name__}: {error}")
    return None


def mute_console() -> Console:
    """A console that shows nothing: process 0 speaks for all."""
    return Console(quiet=True, out=io.StringIO(), err=io.StringIO())
