"""SIGINT and SIGTERM: the first asks the running stage to stop at its next safe point, the second leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from distillkit.errors import Interrupted

_received: int | None = None
_noting = False


def pending() -> int | None:
    """The number of the signal that arrived and was not yet acted on, or None."""
    return _received


def check_interrupted() -> None:
    """The safe point of a loop: call it where nothing is half done.

    Raises:
        Interrupted: a signal arrived.
    """
    if _received is not None:
        raise Interrupted(_received, f"interrupted by {signal.Signals(_received).name}")


@contextlib.contextmanager
def graceful_signals() -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM are noted for `check_interrupted`; a second one exits the process.

    Outside the main thread signals cannot be handled and are left alone. Blocks may be nested.
    """
    global _received, _noting
    if _noting or threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(signal_number: int, frame: FrameType | None) -> None:
        global _received
        if _received is not None:
            # Only what is committed counts, so nothing has to be tidied: leave without running any handler.
            _show_cursor()
            os._exit(128 + signal_number)
        _received = signal_number

    _received, _noting = None, True
    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _received, _noting = None, False


def _show_cursor() -> None:
    """A live display hides the cursor, and whoever leaves at once cannot end the display."""
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h\n")
