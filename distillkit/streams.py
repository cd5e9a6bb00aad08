"""Standard output and standard error as they are found: closed, full, or of an encoding that lacks characters."""

from __future__ import annotations

import io
import os
import sys
from typing import IO

from distillkit.errors import DistillkitError

# The program's own signs, for a stream that cannot show them; what else it cannot show becomes an escape like \u2713.
_PLAIN = str.maketrans(
    {
        "✓": "ok:", "▸": "==", "–": "-", "—": "-", "−": "-", "·": "-", "•": "-", "…": "...", "→": "->", "×": "x", "±": "+-",
        "“": '"', "”": '"', "’": "'", "≥": ">=", "≤": "<=", "²": "^2", "⏎": "\\n", "⇥": "\\t",
    }
)  # fmt: skip


class OutputStream(io.TextIOBase):
    """Writes to another stream whatever that can take.

    Args:
        stream: None (there is none) and a stream that is closed take everything and keep nothing.
        name: what a reader calls it, for the error.
    """

    def __init__(self, stream: IO[str] | None, name: str) -> None:
        super().__init__()
        self._stream = None if stream is None or getattr(stream, "closed", False) else stream
        self._name = name

    @property
    def encoding(self) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return getattr(self._stream, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(getattr(self._stream, "isatty", lambda: False)())

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("there is no stream")
        return self._stream.fileno()

    def can_encode(self, text: str) -> bool:
        """Whether the stream takes the text as it is."""
        try:
            text.encode(self.encoding)
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    def fitting(self, text: str) -> str:
        """The text as the stream can show it."""
        if self.can_encode(text):
            return text
        return text.translate(_PLAIN).encode(self.encoding, "backslashreplace").decode(self.encoding)

    def write(self, text: str, /) -> int:
        """Write the text.

        Raises:
            DistillkitError: the stream cannot be written.
            BrokenPipeError: its reader has gone.
        """
        if self._stream is None:
            return len(text)
        try:
            return self._stream.write(self.fitting(text))
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write(self._name, error) from error

    def flush(self) -> None:
        """Write what is kept back; errors as in `write`."""
        if self._stream is None:
            return
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write(self._name, error) from error


def is_terminal(stream: OutputStream) -> bool:
    """Whether the stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def cannot_write(name: str, error: OSError) -> DistillkitError:
    """The error for a stream that is full or broken."""
    return DistillkitError(f"cannot write to {name}: {error.strerror or error}", hint="check where it is redirected to")


def open_closed_streams() -> None:
    """Give the process the streams that it was started without (`>&-`), leading nowhere.

    Else the next file that is opened would get the number of one, and what a library prints would be written into it.
    What a stream cannot show is written as an escape from now on.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
