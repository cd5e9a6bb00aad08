"""How long a request waits before it is sent again, and how long all of them wait when a server asks for it."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Mapping

_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 60.0


def back_off_seconds(seed: str, attempt: int) -> float:
    """Seconds before the attempt number `attempt` + 2: doubled each time, with a part drawn from `seed`, so that requests that
    failed together do not come back together."""
    whole = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2**attempt)
    return whole * random.Random(f"{seed}/{attempt}").uniform(0.5, 1.0)


def asked_seconds(headers: Mapping[str, str]) -> float | None:
    """What `Retry-After` asks for (RFC 9110, 10.2.3): seconds, or a date; None where it is not there or no such value."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds and seconds != float("inf") else None


class Pace:
    """When the next request may be sent, shared by all threads."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._until = 0.0

    def hold(self, seconds: float) -> None:
        """Nobody sends anything for so long."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def held_seconds(self) -> float:
        """How long nobody sends anything from now on."""
        with self._lock:
            return max(0.0, self._until - time.monotonic())

    def wait(self, seconds: float = 0.0) -> bool:
        """Wait so long, and until sending is allowed. Returns False where everything was stopped meanwhile."""
        ready = time.monotonic() + seconds
        while (left := max(ready - time.monotonic(), self.held_seconds())) > 0:
            if self.stopped.wait(left):
                return False
        return not self.stopped.is_set()
