"""How a terminal draws what the console says: tables, panels, one live display. The only module that imports rich.

It is loaded when something is drawn, so that help and errors in a pipe come without it. Nothing is parsed as markup.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import IO, Protocol, cast

from rich.box import ROUNDED
from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from distillkit.streams import OutputStream, is_terminal
from distillkit.wording import wrapped

# Columns of a log, and of a pipe.
_LOG_WIDTH = 100
# What the first column of a table, and any other one, keep of their width, so that names are not folded for the sake of
# longer texts, and these can be read.
_NAME_WIDTH, _TEXT_WIDTH = 24, 10
# Between two columns of a table.
_GAP = 2
# Characters of a word with a digit up to which it may be a number, or a list of some.
_LONGEST_NUMBER = 30
_BAR_WIDTH, _NARROW_BAR_WIDTH = 24, 10
# Columns of a terminal from which the longer bar fits.
_WIDE_ENOUGH = 100
_REFRESHES_PER_SECOND = 5


def rich_console(stream: OutputStream) -> RichConsole:
    """A console of Rich that writes to `stream`."""
    terminal = is_terminal(stream)
    # Rich would colour pipes under GITHUB_ACTIONS and FORCE_COLOR; a pipe is a pipe. NO_COLOR it honours itself.
    return RichConsole(
        file=cast("IO[str]", stream), force_terminal=terminal, highlight=False, markup=False, emoji=False,
        width=None if terminal else shutil.get_terminal_size().columns if stream.isatty() else _LOG_WIDTH, legacy_windows=False,
    )  # fmt: skip


def print_line(console: RichConsole, label: str, text: str, style: str) -> None:
    """A line as it is, however long; the label in the style."""
    console.print(Text.assemble((label, style), text), soft_wrap=True)


def table_text(
    console: RichConsole, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int]
) -> str:
    """A table with aligned columns, as text for `console`; where it is too narrow for them, a block of lines for each row.

    Text is folded into its column, a number never is.
    """
    widths = column_widths(columns, rows, numeric, console.width)
    with console.capture() as captured:
        # Not as the table's own title, which Rich folds to the width of the columns.
        console.print(Text(title, style="bold"), soft_wrap=True)
        if widths is None:
            lines = (wrapped(line, console.width) for line in _block_lines(columns, rows, numeric))
            console.print(Text("\n".join(lines)), soft_wrap=True)
        else:
            console.print(_aligned(columns, rows, numeric, widths))
    # Rich fills every line to the width with blanks, which logs and copied text do not want.
    return "\n".join(line.rstrip() for line in captured.get().split("\n")).rstrip()


def _aligned(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int], widths: Sequence[int]
) -> Table:
    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for index, (name, width) in enumerate(zip(columns, widths, strict=True)):
        table.add_column(
            Text(name),
            justify="right" if index in numeric else "left",
            overflow="fold",
            header_style="dim",
            width=width,
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def column_widths(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int], room: int
) -> list[int] | None:
    """How wide each column of a table is; None where `room` columns of a terminal are too few for its numbers.

    What is too wide is taken from the widest columns of text first. A cell of a `numeric` column is never folded, in another
    one no word with a digit is, and no column gets so narrow that its text cannot be read.
    """
    cells = [[name, *(row[index] for row in rows)] for index, name in enumerate(columns)]
    whole = [max(map(cell_len, column)) for column in cells]
    least = [
        max(_longest(words_of(column)), min(of_whole, _TEXT_WIDTH if index else _NAME_WIDTH))
        for index, (column, of_whole) in enumerate(zip(cells, whole, strict=True))
        for words_of in [_whole_cells if index in numeric else _words_with_numbers]
    ]
    room -= _GAP * (len(columns) - 1)
    if sum(least) > room:
        return None
    widths, widest = whole, max(whole)
    while sum(widths) > room:
        widest -= 1
        widths = [max(at_least, min(of_whole, widest)) for at_least, of_whole in zip(least, whole, strict=True)]
    # What is left by rounding goes to the first columns that lack it.
    left = room - sum(widths)
    for index, of_whole in enumerate(whole):
        more = min(1, left, of_whole - widths[index])
        widths[index] += more
        left -= more
    return widths


def _longest(words: Sequence[str]) -> int:
    return max(map(cell_len, words), default=0)


def _whole_cells(column: Sequence[str]) -> list[str]:
    """What a column of numbers keeps whole: its cells, and the words of its name."""
    return [*column[0].split(), *column[1:]]


def _words_with_numbers(column: Sequence[str]) -> list[str]:
    """What a column of text keeps whole: the words of its name, and numbers; paths are folded, whatever is in them."""
    words = (word for cell in column[1:] for word in cell.split())
    numbers = (word for word in words if len(word) <= _LONGEST_NUMBER and any(map(str.isdigit, word)))
    return [*column[0].split(), *numbers]


def _block_lines(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int]) -> list[str]:
    """For each row what it is about, and below it every other cell with the name of its column."""
    lines = []
    for first, *others in rows:
        if not any((first, *others)):
            lines.append("")
        if first:
            # A number alone says nothing without the name of its column.
            lines.append(f"{columns[0]} {first}" if 0 in numeric and columns[0] else first)
        lines += [
            f"  {name}: {cell}" if name else f"  {cell}" for name, cell in zip(columns[1:], others, strict=True) if cell
        ]
    return lines


def panels(sections: Sequence[tuple[str, Sequence[tuple[str, str]]]], width: int) -> str:
    """A frame for each section, as text for a terminal.

    Args:
        sections: title, and (name, text) of each line.
    """
    console = RichConsole(
        force_terminal=True, highlight=False, markup=False, emoji=False, width=width, legacy_windows=False
    )
    with console.capture() as captured:
        for title, lines in sections:
            body = Text("\n").join(Text.assemble((name, "cyan"), text) for name, text in lines)
            console.print(
                Panel(body, title=Text(title, style="bold"), title_align="left", border_style="dim", box=ROUNDED)
            )
    return captured.get().rstrip("\n")


class Work(Protocol):
    """One running piece of work, as the live display asks for it."""

    @property
    def description(self) -> str: ...

    @property
    def completed(self) -> float: ...

    @property
    def total(self) -> float | None: ...

    def amount_words(self) -> str:
        """`120/500 steps`."""
        ...

    def speed_words(self) -> list[str]:
        """The time left, then the units in a second."""
        ...

    def figures(self) -> list[str]:
        """`loss 1.669`, `1.2 GB`."""
        ...


class LiveDisplay:
    """All running pieces of work at the bottom of the terminal, below the stage that they belong to.

    Args:
        stage_words: of the running stage; "" where there is none.
    """

    def __init__(self, console: RichConsole, stage_words: Callable[[], str]) -> None:
        self._console = console
        self._stage_words = stage_words
        self._pieces: list[Work] = []
        # The dots of the usual spinner are no signs of older code pages.
        modern = console.encoding.lower().startswith("utf")
        self._spinner = Spinner("dots" if modern else "line")
        self._live = Live(
            get_renderable=self._render, console=console, transient=True, refresh_per_second=_REFRESHES_PER_SECOND
        )

    def add(self, piece: Work) -> None:
        """Show a piece of work, below those that are shown."""
        self._pieces.append(piece)
        if len(self._pieces) == 1:
            self._live.start()

    def remove(self, piece: Work) -> bool:
        """Show it no longer. Returns whether none is left, and the display gone."""
        self._pieces.remove(piece)
        if not self._pieces:
            self._live.stop()
        return not self._pieces

    def refresh(self) -> None:
        """Draw it now."""
        self._live.refresh()

    def _render(self) -> Group:
        width = self._console.width
        stage = self._stage_words()
        lines: list[Text | Table] = [Text(stage, style="bold", overflow="ellipsis", no_wrap=True)] if stage else []
        for piece in self._pieces:
            lines.append(self._work_line(piece, width))
            lines += [Text(line, style="dim") for line in packed(piece.figures(), width - 2, indent="  ")]
        return Group(*lines)

    def _work_line(self, piece: Work, width: int) -> Table:
        bar_width = _BAR_WIDTH if width >= _WIDE_ENOUGH else _NARROW_BAR_WIDTH
        words = [piece.amount_words(), *piece.speed_words()]
        # The spinner, the bar and a blank after each.
        room = width - 2 - (bar_width + 1 if piece.total is not None else 0) - len(piece.description) - 1
        while len(words) > 1 and len(" · ".join(words)) > room:
            words.pop()
        line = Table.grid(padding=(0, 1, 0, 0))
        cells: list[Spinner | ProgressBar | Text] = [self._spinner, Text(piece.description)]
        if piece.total is not None:
            cells.append(ProgressBar(total=piece.total or 1, completed=piece.completed, width=bar_width))
        cells.append(Text(" · ".join(words)))
        for index in range(len(cells)):
            line.add_column(no_wrap=True, overflow="ellipsis" if index == 1 else "crop")
        line.add_row(*cells)
        return line


def packed(words: Sequence[str], width: int, *, indent: str = "") -> list[str]:
    """Words side by side, in as few lines of at most `width` columns as they need; none is broken."""
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]} · {word}" if lines else ""
        if lines and len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(indent + word)
    return lines
