"""`distillkit launch`: a command in several processes of this machine, started and watched by torch's own launcher.

torchrun would do as well; it ends with exit code 1 whatever happened, and with a table of its own. For several machines it
is what to use (docs/scale.md).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from distillkit.errors import DistillkitError, UsageError
from distillkit.process_environment import set_aside
from distillkit.processes.channel import current

_FOR_EVER = 10**9
_POLL_SECONDS = 0.1
# What process 0 needs to notice that another has gone, to say so and to end, and the others to follow it.
_NOTICE_SECONDS = 30.0


def run_processes(arguments: Sequence[str], processes: int | None) -> int:
    """Run `distillkit ARGUMENTS` in several processes of this machine.

    Args:
        processes: how many; None: one for each GPU.

    Returns:
        The exit code of process 0.

    Raises:
        UsageError: there is nothing to run, or no number to be found.
        DistillkitError: one of them was killed, and process 0 could not say so itself.
    """
    if current() is not None:
        raise UsageError(
            "distillkit launch was started by a launcher itself", hint="start it by itself, or leave it out"
        )
    if not arguments or arguments[0] == "launch":
        raise UsageError("distillkit launch needs a command", hint="distillkit launch --processes 2 -- distill …")
    count = processes or _gpus()
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, start_processes

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL + 1)  # this module says it in one line
    context = start_processes(
        name="distillkit", entrypoint=sys.executable,
        args=dict.fromkeys(range(count), ("-m", "distillkit", *arguments)),
        envs=_environments(count), logs_specs=DefaultLogsSpecs(),
    )  # fmt: skip
    started = [getattr(context, "subprocess_handlers")[rank].proc for rank in range(count)]  # noqa: B009
    try:
        lost = _wait(started)
        context.close(signal.SIGTERM)
    except SignalException as first:
        # They save what can be resumed, which may take longer than a launcher usually waits. A second signal ends them.
        lost = None
        try:
            context.close(first.sigval, timeout=_FOR_EVER)
        except SignalException:
            context.close(signal.SIGKILL)
    leader = started[0].poll()
    if lost is None and leader is not None and leader >= 0:
        return leader
    which, code = (0, leader) if lost is None else lost
    raise DistillkitError(
        f"process {which} of {count} {_ended(code)}",
        hint="what is saved stays; the same command continues, or distillkit distill --run DIR",
    )


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> tuple[int, int] | None:
    """Wait for process 0. One of the others that ends before it cannot be done without: process 0 notices that in shared work
    and ends by itself; elsewhere it is stopped.

    Returns:
        (rank, exit code) of one that had to be waited for in vain; None where process 0 ended by itself.
    """
    leader, ended, since = processes[0], None, 0.0
    while leader.poll() is None:
        time.sleep(_POLL_SECONDS)
        if ended is None:
            ended = next(
                ((rank, code) for rank, it in enumerate(processes) if rank and (code := it.poll()) is not None), None
            )
            since = time.monotonic()
        elif time.monotonic() - since > _NOTICE_SECONDS:
            return ended
    until = time.monotonic() + _NOTICE_SECONDS
    while time.monotonic() < until and any(it.poll() is None for it in processes):
        time.sleep(_POLL_SECONDS)
    return None


def _ended(code: int | None) -> str:
    if code is None or code < 0:
        return f"was killed ({signal.Signals(-(code or -signal.SIGKILL)).name})"
    return f"ended with exit code {code}"


def _gpus() -> int:
    import torch

    count = torch.cuda.device_count()
    if count == 0:
        raise UsageError("distillkit launch cannot tell how many processes: there is no GPU", hint="give --processes N")
    return count


def _environments(count: int) -> dict[int, dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**set_aside().computing, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if "OMP_NUM_THREADS" not in os.environ:
        from distillkit.device.processors import usable_processors

        common["OMP_NUM_THREADS"] = str(max(1, usable_processors() // count))
    return {rank: {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)}
