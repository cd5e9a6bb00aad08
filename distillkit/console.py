"""Everything that people and scripts see. The only module that imports rich.

Data goes to stdout, everything else to stderr. A terminal sees tables and one live progress display; a pipe or a log
sees plain lines. Text from models, data and configuration is never interpreted: control characters are stripped and
Rich markup is not parsed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import textwrap
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, cast

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column, Table
from rich.text import Text

from distillkit.errors import DistillkitError
from distillkit.streams import OutputStream

# Escape sequences go as a whole, so that no "[31m" is left behind: CSI, OSC and other string sequences, two-byte ones.
_ESCAPE_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[ -/]*[0-~]?"
)
# Other control characters, and the bidirectional overrides that reorder what a reader sees.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# An address comes first: where a token is its user, the password behind it is a secret too.
_SECRETS = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|\b(hf_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_-]{16,})\b")

_PLAIN_SECONDS_BETWEEN_LINES = 10.0
# Columns of a terminal in which a progress line with everything fits.
_WIDE_ENOUGH = 110
# What a first column keeps of its width, so that names are not folded for the sake of longer texts.
_NAME_WIDTH = 24


def sanitize(text: str) -> str:
    """`text` without terminal control sequences and access tokens; tabs and line feeds are kept."""
    text = text.replace("\r\n", "\n")
    text = _CONTROL_CHARACTERS.sub("", _ESCAPE_SEQUENCES.sub("", text))
    return _SECRETS.sub("[secret]", text)


def format_duration(seconds: float) -> str:
    """`75` -> `1:15`; `3700` -> `1:01:40`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, second = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def format_bytes(count: float) -> str:
    """`1536` -> `1.5 kB` (decimal units)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_value(value: Any) -> str:
    """One value for a table or a plain line: short, without markup, control characters or secrets."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return sanitize(str(value)).replace("\n", " ")


def _one_line() -> Column:
    return Column(no_wrap=True)


def _wrapped(line: str, width: int) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )


class _Rate(ProgressColumn):
    """`12 texts/s · 0:41 left`, both from the work done since this display began; a narrow terminal sees the latter."""

    def __init__(self, narrow: bool) -> None:
        super().__init__(_one_line())
        self.narrow = narrow

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["started_at"]
        elapsed = task.elapsed or 0.0
        if done <= 0 or elapsed <= 0:
            return Text("")
        rate = done / elapsed
        figures = [f"{rate:.3g} {task.fields['unit']}/s"]
        if task.total is not None:
            left = f"{format_duration((task.total - task.completed) / rate)} left"
            figures = [left] if self.narrow else [*figures, left]
        return Text(" · ".join(figures), style="dim")


class ProgressHandle:
    """One running piece of work; `advance` it as units get done."""

    def __init__(self, console: Console, description: str, total: float | None, unit: str, completed: float) -> None:
        self._console = console
        self.description = description
        self.total = total
        self.unit = unit
        self.completed = completed
        self._started_at = completed
        self._start_time = time.monotonic()
        self._last_line = self._start_time
        self._fields: dict[str, Any] = {}
        self._live: Progress | None = None
        self._task: Any = None

    def advance(self, amount: float = 1, **fields: Any) -> None:
        """Count `amount` more units as done; `fields` (loss=…, bpb=…) are shown beside the bar."""
        self.update(completed=self.completed + amount, **fields)

    def update(self, *, completed: float | None = None, total: float | None = None, **fields: Any) -> None:
        """Set how many units are done, or how many there are, or the figures shown beside the bar."""
        if completed is not None:
            self.completed = completed
        if total is not None:
            self.total = total
        self._fields.update(fields)
        if self._live is not None:
            self._live.update(self._task, completed=self.completed, total=self.total, figures=self._figures())
        elif self._console.shows_progress and time.monotonic() - self._last_line >= _PLAIN_SECONDS_BETWEEN_LINES:
            self._plain_line()

    def warn(self, message: str) -> None:
        """A warning, while the work continues."""
        self._console.warn(message)

    def _figures(self) -> str:
        return "  ".join(f"{name} {format_value(value)}" for name, value in self._fields.items())

    def _plain_line(self) -> None:
        self._last_line = now = time.monotonic()
        done = self.completed - self._started_at
        line = f"{self.description}: {self.completed:.0f}"
        if self.total is not None:
            line += f"/{self.total:.0f}"
        line += f" {self.unit}"
        if done > 0 and now > self._start_time and self.total is not None and self.completed < self.total:
            remaining = (self.total - self.completed) * (now - self._start_time) / done
            line += f", {format_duration(remaining)} left"
        if self._fields:
            line += f", {self._figures()}"
        self._console.plain(line)

    def finish(self, failed: bool) -> None:
        """Write the last line where there is no live display; nothing where the work failed."""
        if self._live is None and self._console.shows_progress and not failed:
            seconds = time.monotonic() - self._start_time
            figures = f", {self._figures()}" if self._fields else ""
            unit = self.unit.removesuffix("s") if self.completed == 1 and len(self.unit) > 1 else self.unit
            line = f"{self.description}: {self.completed:.0f} {unit} in {format_duration(seconds)}{figures}"
            self._console.plain(line)


class Console:
    """What a stage shows to people and scripts.

    Args:
        quiet: only warnings and errors are shown (and data on stdout).
        json_output: stdout carries one JSON object at the end and nothing else; people still read stderr.
        debug: known errors show their traceback too.
        out, err: the streams; sys.stdout and sys.stderr when None.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        json_output: bool = False,
        debug: bool = False,
        out: IO[str] | None = None,
        err: IO[str] | None = None,
    ) -> None:
        self.quiet = quiet
        self.json_output = json_output
        self.debug = debug
        self._out_stream = OutputStream(out or sys.stdout, "standard output")
        self._err_stream = OutputStream(err or sys.stderr, "standard error")
        self._out = self._rich(self._out_stream)
        self._err = self._rich(self._err_stream)
        self._live: Progress | None = None

    @staticmethod
    def _rich(stream: OutputStream) -> RichConsole:
        terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        # Rich would colour pipes under GITHUB_ACTIONS and FORCE_COLOR; a pipe is a pipe. NO_COLOR it honours itself.
        width = None if terminal else 100
        return RichConsole(
            file=cast("IO[str]", stream), force_terminal=terminal, highlight=False, markup=False, emoji=False, width=width,
            legacy_windows=False,
        )  # fmt: skip

    @property
    def interactive(self) -> bool:
        """Whether stderr is a terminal."""
        return self._err.is_terminal

    @property
    def shows_progress(self) -> bool:
        """Whether progress is shown at all."""
        return not self.quiet

    def _sentence(self, label: str, message: str, style: str = "") -> None:
        """One line of prose on stderr, for a terminal broken between words; paths and commands stay whole."""
        sentence = label + sanitize(message)
        if self.interactive:
            sentence = "\n".join(_wrapped(line, self._err.width) for line in sentence.split("\n"))
        text = Text(sentence)
        text.stylize(style, 0, len(label))
        self._err.print(text, soft_wrap=True)

    def plain(self, message: str) -> None:
        """One uncoloured line on stderr."""
        self._sentence("", message)

    def info(self, message: str) -> None:
        """A line of what happens; hidden by --quiet."""
        if not self.quiet:
            self.plain(message)

    def heading(self, message: str) -> None:
        """The start of a stage."""
        if not self.quiet:
            self._err.print(
                Text(f"▸ {sanitize(message)}" if self.interactive else f"== {sanitize(message)}", style="bold")
            )

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
            self._err.print(Text(sanitize(lines)), soft_wrap=True)
        message = error.message if isinstance(error, DistillkitError) else f"{type(error).__name__}: {error}"
        self._sentence("error: ", message, "bold red")
        hint = error.hint if isinstance(error, DistillkitError) else None
        if hint:
            # A hint may be a command to copy, which a line break would cut in two.
            self._err.print(Text("hint: ", style="cyan") + Text(sanitize(hint)), soft_wrap=True)
        if next_command:
            self._err.print(Text("continue with: ", style="cyan") + Text(sanitize(next_command)), soft_wrap=True)

    def data(self, message: str) -> None:
        """A result for stdout, as text; nothing under --json, whose object says it."""
        if not self.json_output:
            self._out.print(Text(sanitize(message)), soft_wrap=True)

    def stream(self, piece: str) -> None:
        """A part of a result for stdout, at once and without a line end of its own."""
        self._out_stream.write(sanitize(piece))
        self._out_stream.flush()

    def prose(self, message: str) -> None:
        """A sentence for stdout, for a terminal broken between words."""
        self.data(_wrapped(sanitize(message), self._out.width) if self._out.is_terminal else message)

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
        target = self._out if to_stdout else self._err
        table = Table(box=None, pad_edge=False, show_header=any(columns))
        cells = [[format_value(cell) for cell in row] for row in rows]
        for index, name in enumerate(columns):
            justify = "right" if index in numeric else "left"
            longest = max((len(row[0]) for row in cells), default=0)
            least = min(longest, _NAME_WIDTH) if index == 0 else None
            table.add_column(
                Text(sanitize(name)), justify=justify, overflow="fold", header_style="dim", min_width=least
            )
        for row in cells:
            table.add_row(*map(Text, row))
        with target.capture() as captured:
            # Not as the table's own title, which Rich folds to the width of the columns.
            target.print(Text(sanitize(title).replace("\n", " "), style="bold"), soft_wrap=True)
            target.print(table)
        # Rich fills every line to the width with blanks, which logs and copied text do not want.
        lines = [line.rstrip() for line in captured.get().split("\n")]
        stream = self._out_stream if to_stdout else self._err_stream
        stream.write("\n" + "\n".join(lines).rstrip() + "\n\n")
        stream.flush()

    @contextlib.contextmanager
    def progress(
        self, description: str, total: float | None = None, *, unit: str = "items", completed: float = 0
    ) -> Iterator[ProgressHandle]:
        """Show work in progress with speed and time left.

        In a terminal one live display serves all nested calls; elsewhere a line is written every ten seconds and one
        at the end. `completed` is what an earlier, interrupted attempt already did: it does not count for the speed.
        """
        handle = ProgressHandle(self, description, total, unit, completed)
        own_display = False
        if self.shows_progress and self.interactive:
            if self._live is None:
                narrow = self._err.width < _WIDE_ENOUGH
                figures = TextColumn("{task.fields[figures]}", markup=False, style="cyan", table_column=_one_line())
                self._live = Progress(
                    SpinnerColumn(), TextColumn("{task.description}", markup=False, table_column=_one_line()),
                    BarColumn(bar_width=12 if narrow else 24), MofNCompleteColumn(table_column=_one_line()),
                    _Rate(narrow), figures, console=self._err, transient=True, refresh_per_second=5,
                )  # fmt: skip
                self._live.start()
                own_display = True
            handle._live = self._live
            handle._task = self._live.add_task(
                sanitize(description),
                total=total,
                completed=int(completed),
                unit=unit,
                figures="",
                started_at=completed,
            )
        try:
            yield handle
        except BaseException:
            handle.finish(failed=True)
            raise
        else:
            handle.finish(failed=False)
        finally:
            if handle._live is not None:
                handle._live.remove_task(handle._task)
                if own_display and self._live is not None:
                    self._live.stop()
                    self._live = None
