"""Errors that a user can act on: one line that says what and where, one hint that mends it, one exit code.

Everything else that escapes is a defect of the program and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path


def first_line(error: BaseException) -> str:
    """The first line of a library's error, for a message; its type where it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class DistillkitError(Exception):
    """A failure while running (exit code 1).

    Args:
        message: one line: what went wrong, and where.
        hint: the command or flag that mends it.
        exit_code: the process exit code; subclasses fix it.
    """

    exit_code = 1
    run: Path | None = None  # the run directory that was being worked on
    next_command: str | None = None  # the shell command that continues it

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int | None = None) -> None:
        # What it quotes, such as a key of a file, may hold line ends.
        self.message = " ".join(message.splitlines())
        super().__init__(self.message)
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class NotFiniteError(DistillkitError):
    """A student's loss, gradient or score became NaN or infinite (exit code 1)."""


class UsageError(DistillkitError):
    """Wrong usage, configuration or data (exit code 2); nothing on disk was touched."""

    exit_code = 2


class PreconditionError(DistillkitError):
    """Something that must be there is missing, stale, corrupt, locked or out of reach (exit code 3)."""

    exit_code = 3


class QualityGateError(DistillkitError):
    """The student did not pass the check of `validate` (exit code 4)."""

    exit_code = 4


class Interrupted(DistillkitError):
    """SIGINT (exit code 130) or SIGTERM (143) after everything resumable was committed."""

    def __init__(self, signal_number: int, message: str = "interrupted", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, exit_code=128 + signal_number)
        self.signal_number = signal_number
