"""Everything that people and scripts see.

Data goes to stdout, everything else to stderr. A terminal sees tables and one live display of the running work
(`terminal.py` draws them); a pipe or a log sees plain lines, at most one every ten seconds for running work, which
GitHub Actions folds by stage. Text from models, data and configuration is never interpreted: control characters are
stripped, markup is not parsed, and a line that GitHub would take for a command is changed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from distillkit.errors import DistillkitError
from distillkit.streams import OutputStream, is_terminal
from distillkit.wording import format_bytes, format_duration, format_value, sanitize, wrapped
from distillkit.words import say

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from distillkit.terminal import LiveDisplay

__all__ = ["Console", "ProgressHandle", "format_bytes", "format_duration", "format_value", "sanitize"]

_PLAIN_SECONDS_BETWEEN_LINES = 10.0
_COMMAND = re.compile(r"\b(distillkit|pip|python|git|unset|export) \S|\S{40}")
# What GitHub Actions would take for a command, wherever a log has it.
_GITHUB_COMMAND = re.compile(r"^(\s*):(?=:)|##(?=\[)", re.MULTILINE)


class ProgressHandle:
    """One running piece of work; `advance` it as units get done."""

    def __init__(self, console: Console, description: str, total: float | None, unit: str, completed: float) -> None:
        self._console = console
        self.description = sanitize(description)
        self.total = total
        self.unit = unit
        self.completed = completed
        self._started_at = completed
        self._start_time = time.monotonic()
        self._fields: dict[str, Any] = {}

    def advance(self, amount: float = 1, **fields: Any) -> None:
        """Count `amount` more units as done; `fields` (loss=…, kept=…) are shown beside them."""
        self.update(completed=self.completed + amount, **fields)

    def update(self, *, completed: float | None = None, total: float | None = None, **fields: Any) -> None:
        """Set how many units are done, or how many there are, or the figures shown beside them; None takes a figure away."""
        if completed is not None:
            self.completed = completed
        if total is not None:
            self.total = total
        self._fields.update(fields)
        self._console._show_progress(self)

    def warn(self, message: str) -> None:
        """A warning, while the work continues."""
        self._console.warn(message)

    # --- in words ---

    def amount_words(self) -> str:
        """`40/100 steps`, `1.2/5.0 GB`, and where seconds are all there is to count, those."""
        if self.unit == "s":
            return format_duration(time.monotonic() - self._start_time)
        if self.unit == "bytes":
            of = "" if self.total is None else f" of {format_bytes(self.total)}"
            return f"{format_bytes(self.completed)}{of}"
        return f"{self.completed:.0f}{'' if self.total is None else f'/{self.total:.0f}'} {self.unit}"

    def speed_words(self) -> list[str]:
        """`0:41 left` and `12 texts/s`, both from the work done since this attempt began."""
        done, seconds = self.completed - self._started_at, time.monotonic() - self._start_time
        if done <= 0 or seconds <= 0 or self.unit == "s":
            return []
        rate = f"{format_bytes(done / seconds) if self.unit == 'bytes' else f'{done / seconds:.3g} {self.unit}'}/s"
        if self.total is None:
            return [rate]
        left = max(0.0, self.total - self.completed) * seconds / done
        return [f"{format_duration(left)} left", rate]

    def figures(self) -> list[str]:
        """`loss 1.669`, `memory 1.2 GB`."""
        return [f"{name} {format_value(value)}" for name, value in self._fields.items() if value is not None]

    def line(self) -> str:
        """Where the work stands, for a log."""
        unfinished = self.total is not None and self.completed < self.total
        left = self.speed_words()[:1] if unfinished else []
        return ", ".join([f"{self.description}: {self.amount_words()}", *left, *self.figures()])

    def last_line(self) -> str:
        """What was done, for a log."""
        seconds = format_duration(time.monotonic() - self._start_time)
        if self.unit == "s":
            return ", ".join([f"{self.description}: {seconds}", *self.figures()])
        unit = self.unit.removesuffix("s") if self.completed == 1 else self.unit
        amount = format_bytes(self.completed) if self.unit == "bytes" else f"{self.completed:.0f} {unit}"
        return ", ".join([f"{self.description}: {amount} in {seconds}", *self.figures()])


class Console:
    """What a stage shows to people and scripts.

    Args:
        quiet: only warnings and errors are shown (and data on stdout).
        json_output: stdout carries one JSON object at the end and nothing else; people still read stderr.
        debug: known errors show their traceback too.
        lang: of results and plans, one of `words.LANGUAGES`; the object of --json is English in any.
        lang_asked: it was named, and not only that of the locale.
        out, err: the streams; sys.stdout and sys.stderr when None.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        json_output: bool = False,
        debug: bool = False,
        lang: str = "en",
        lang_asked: bool = False,
        out: IO[str] | None = None,
        err: IO[str] | None = None,
    ) -> None:
        self.quiet = quiet
        self.json_output = json_output
        self.debug = debug
        self.lang = lang
        self.lang_asked = lang_asked
        self._out_stream = OutputStream(out or sys.stdout, "standard output")
        self._err_stream = OutputStream(err or sys.stderr, "standard error")
        self._live: LiveDisplay | None = None
        self._last_progress_line = 0.0
        self._running = 0
        self._stage = ""
        self._stage_began = 0.0

    @functools.cached_property
    def _out(self) -> RichConsole:
        from distillkit.terminal import rich_console

        return rich_console(self._out_stream)

    @functools.cached_property
    def _err(self) -> RichConsole:
        from distillkit.terminal import rich_console

        return rich_console(self._err_stream)

    def say(self, key: str, **parts: object) -> str:
        """Words of `distillkit.words` in the language of this console."""
        return say(self.lang, key, **parts)

    @property
    def interactive(self) -> bool:
        """Whether stderr is a terminal."""
        return is_terminal(self._err_stream)

    @property
    def width(self) -> int:
        """Columns of standard output; of a pipe those of a log."""
        return self._out.width

    @property
    def can_ask(self) -> bool:
        """Whether a person is there who sees a question and can answer it."""
        return self.interactive and sys.stdin is not None and sys.stdin.isatty()

    def confirmed(self, question: str) -> bool:
        """Ask the person at the terminal; anything but yes is no."""
        self._err_stream.write(f"{sanitize(question)} [y/N] ")
        self._err_stream.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    @property
    def shows_progress(self) -> bool:
        """Whether progress is shown at all."""
        return not self.quiet

    def _line(self, label: str, text: str, style: str = "") -> None:
        """A line on stderr as it is, which may be one to copy; the label has the style where there are styles."""
        if self.interactive:
            from distillkit.terminal import print_line

            print_line(self._err, label, text, style)
            return
        self._err_stream.write(self._for_log(f"{label}{text}\n"))
        self._err_stream.flush()

    def _sentence(self, label: str, message: str, style: str = "") -> None:
        """One line of prose on stderr, for a terminal broken between words; paths and commands stay whole."""
        text = sanitize(message)
        if self._err_stream.isatty():
            lines = [wrapped(line, self._err.width) for line in (label + text).split("\n")]
            text = "\n".join(lines)[len(label) :]
        self._line(label, text, style)

    def _for_log(self, text: str) -> str:
        """The text without what GitHub Actions would do instead of showing it."""
        return _GITHUB_COMMAND.sub(lambda found: f"{found.group()} ", text) if self._in_github else text

    @property
    def _in_github(self) -> bool:
        return os.environ.get("GITHUB_ACTIONS") == "true"

    @property
    def _folds(self) -> bool:
        """Whether GitHub Actions reads along, and folds what stands between two of its commands."""
        return self._in_github and not self.interactive

    def plain(self, message: str) -> None:
        """One uncoloured line on stderr."""
        self._sentence("", message)

    def info(self, message: str) -> None:
        """A line of what happens; hidden by --quiet."""
        if not self.quiet:
            self.plain(message)

    @contextlib.contextmanager
    def stage(self, message: str, place: str = "") -> Iterator[None]:
        """A stage: a heading, what is shown until it ends, and a fold where GitHub Actions reads along.

        Args:
            place: `3 of 6`, for the live display.
        """
        heading = sanitize(message).replace("\n", " ")
        self._stage = f"{heading}{f' ({place})' if place else ''}"
        self._stage_began = time.monotonic()
        folds = self._folds and not self.quiet
        if folds:
            self._err_stream.write(f"::group::{heading}\n")
        elif not self.quiet:
            self._line(f"{'▸' if self.interactive else '=='} {heading}", "", "bold")
        try:
            yield
        finally:
            self._stage = ""
            if folds:
                self._err_stream.write("::endgroup::\n")
                self._err_stream.flush()

    def _stage_words(self) -> str:
        return f"{self._stage}  {format_duration(time.monotonic() - self._stage_began)}" if self._stage else ""

    def success(self, message: str) -> None:
        """The end of a stage; hidden by --quiet."""
        if not self.quiet:
            self._sentence("✓ ", message, "green")

    def warn(self, message: str) -> None:
        """A warning; --quiet shows it too."""
        self._sentence("warning: ", message, "yellow")

    def error(self, error: BaseException, next_command: str | None = None) -> None:
        """One line for what happened, one for what mends it, last the command that continues."""
        if self.debug:
            lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            self._line("", sanitize(lines))
        message = error.message if isinstance(error, DistillkitError) else f"{type(error).__name__}: {error}"
        self._sentence("error: ", message, "bold red")
        hint = error.hint if isinstance(error, DistillkitError) else None
        if hint:
            # A line break would cut a command in two that is to be copied.
            (self._line if _COMMAND.search(hint) else self._sentence)("hint: ", sanitize(hint), "cyan")
        if next_command:
            self._line("continue with: ", sanitize(next_command), "cyan")

    def data(self, message: str) -> None:
        """A result for stdout, as text; nothing under --json, whose object says it."""
        if not self.json_output:
            self._out_stream.write(self._for_log(sanitize(message)) + "\n")
            self._out_stream.flush()

    def stream(self, piece: str) -> None:
        """A part of a result for stdout, at once and without a line end of its own."""
        self._out_stream.write(sanitize(piece))
        self._out_stream.flush()

    def prose(self, message: str) -> None:
        """A sentence for stdout, for a terminal broken between words."""
        self.data(wrapped(sanitize(message), self._out.width) if self._out_stream.isatty() else message)

    def flush(self) -> None:
        """Write what the streams keep back.

        Raises:
            DistillkitError: one cannot be written.
            BrokenPipeError: the reader of one has gone.
        """
        self._out_stream.flush()
        self._err_stream.flush()

    def json(self, value: Mapping[str, Any]) -> None:
        """The one JSON object of --json.

        Raises:
            ValueError: it holds NaN or infinity.
        """
        if self.json_output:
            text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False, default=str)
            if not self._out_stream.can_encode(text):
                text = json.dumps(value, indent=2, allow_nan=False, default=str)
            self._out_stream.write(text + "\n")
            self._out_stream.flush()

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        numeric: Sequence[int] = (),
        to_stdout: bool = False,
    ) -> None:
        """A table: aligned columns in a terminal and in a log alike. `numeric` columns are aligned to the right; without
        names of columns it has no head."""
        if (self.quiet and not to_stdout) or (to_stdout and self.json_output):
            return
        from distillkit.terminal import table_text

        cells = [[self._cell(cell) for cell in row] for row in rows]
        names = [sanitize(name) for name in columns]
        heading = sanitize(title).replace("\n", " ")
        text = table_text(self._out if to_stdout else self._err, heading, names, cells, numeric)
        stream = self._out_stream if to_stdout else self._err_stream
        stream.write(self._for_log(f"\n{text}\n\n"))
        stream.flush()

    def _cell(self, value: Any) -> str:
        return self.say("plan.on" if value else "plan.off") if isinstance(value, bool) else format_value(value)

    @contextlib.contextmanager
    def progress(
        self, description: str, total: float | None = None, *, unit: str = "items", completed: float = 0
    ) -> Iterator[ProgressHandle]:
        """Show work in progress with speed and time left.

        In a terminal one live display serves all nested calls; elsewhere a line is written every ten seconds and one
        at the end. `completed` is what an earlier, interrupted attempt already did: it does not count for the speed.
        """
        handle = ProgressHandle(self, description, total, unit, completed)
        live = self._live_display()
        if live is not None:
            live.add(handle)
        self._running += 1
        try:
            yield handle
        finally:
            self._running -= 1
            if live is not None and live.remove(handle):
                self._live = None
        # Of short work within other work nobody needs to know in a log.
        told = not self._running or time.monotonic() - handle._start_time >= _PLAIN_SECONDS_BETWEEN_LINES
        if live is None and self.shows_progress and told:
            self.plain(handle.last_line())

    def _live_display(self) -> LiveDisplay | None:
        """The one display, for a terminal; None elsewhere."""
        if self.interactive and self.shows_progress and self._live is None:
            from distillkit.terminal import LiveDisplay

            self._live = LiveDisplay(self._err, self._stage_words)
        return self._live

    def _show_progress(self, handle: ProgressHandle) -> None:
        """A line where there is no live display, which looks at the work itself."""
        now = time.monotonic()
        quiet_for = now - max(self._last_progress_line, handle._start_time)
        if self._live is None and self.shows_progress and quiet_for >= _PLAIN_SECONDS_BETWEEN_LINES:
            self._last_progress_line = now
            self.plain(handle.line())
