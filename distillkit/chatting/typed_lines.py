"""Lines of standard input: from a pipe as they are, from a person with the editing and history of readline."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import IO

from distillkit.errors import Interrupted


def lines_of(source: IO[str], *, typing: bool) -> Iterable[str]:
    """The lines of `source`.

    Args:
        typing: a person types them; they are asked for with a prompt.

    Raises:
        Interrupted: Ctrl-C while a line is awaited.
    """
    return _typed() if typing else source


def _typed() -> Iterator[str]:
    with contextlib.suppress(ImportError):  # There is none on Windows.
        import readline  # noqa: F401
    while True:
        try:
            yield input("> ")
        except EOFError:
            sys.stdout.write("\n")
            return
        except KeyboardInterrupt:
            raise Interrupted(signal.SIGINT) from None
