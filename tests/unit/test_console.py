"""What reaches a terminal: nothing that data, models or configuration could smuggle in."""

from __future__ import annotations

import contextlib
import io
import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distillkit import console as console_module
from distillkit.console import Console, format_bytes, format_duration, format_value, sanitize
from distillkit.errors import UsageError
from distillkit.wording import wrapped

ESCAPES = [
    "\x1b[31m",
    "\x1b]0;title\x07",
    "\x1b]8;;https://example.org\x1b\\",
    "\x1bP",
    "\x1b",
    "\x9b2J",
    "\x9d0;t\x9c",
]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def spoken(**options: object) -> tuple[Console, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Console(out=out, err=err, **options), out, err  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("plain words", "plain words"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("\x1b[38;2;1;2;3mtrue colour", "true colour"),
        ("\x1b]8;;https://example.org\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("\x1b]8;;https://example.org\x07a link\x1b]8;;\x07", "a link"),
        ("\x1b]0;a new title\x07text", "text"),
        ("\x1b]52;c;Y2xpcGJvYXJk\x07text", "text"),
        ("\x1bP1$r0m\x1b\\text", "text"),
        ("\x1b_application\x1b\\text", "text"),
        ("\x1bctext", "text"),
        ("\x1b(0text", "text"),
        ("\x9b31mC1\x9b0m", "C1"),
        ("\x9d0;title\x9ctext", "text"),
        ("unfinished \x1b[", "unfinished "),
        ("at the end \x1b", "at the end "),
        ("bell\x07 back\x08space nul\x00 delete\x7f", "bell backspace nul delete"),
        ("user\u202egnp.exe", "usergnp.exe"),
        ("\u2066isolated\u2069", "isolated"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("over\rwritten", "overwritten"),
        ("Windows\r\nlines", "Windows\nlines"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("Ёлка 中文 é 👩‍👩‍👧 אבג", "Ёлка 中文 é 👩‍👩‍👧 אבג"),
        ("token hf_abcdefghijKLMNOP123 here", "token [secret] here"),
        ("sk-abcdefghijklmnop1234", "[secret]"),
        ("https://me:password@example.org/x", "https://[secret]@example.org/x"),
        ("hf_\x1b[0mabcdefghij", "[secret]"),
        ("hf_hub is a package", "hf_hub is a package"),
    ],
)
def test_sanitize(raw: str, clean: str) -> None:
    assert sanitize(raw) == clean


ANY_TEXT = st.lists(
    st.one_of(
        st.sampled_from(ESCAPES),
        st.characters(codec=None),
        st.characters(max_codepoint=0x9F),
        st.sampled_from(["hf_", "hf_abcdefgh", "sk-", "://", "a:b@", "\r\n", "[0m", "\u202e"]),
    ),
    max_size=30,
).map("".join)


@settings(max_examples=300, deadline=None)
@example("\x1b\x1b[[31m0m")
@example("\x1b[\x1b[31m")
@example("\r\r\n\n")
@example("hf_\x00abcdefgh")
@example("://hf_abcdefgha:b@")
@given(ANY_TEXT)
def test_nothing_dangerous_survives_and_once_is_enough(raw: str) -> None:
    clean = sanitize(raw)
    assert not CONTROL.search(clean)
    assert sanitize(clean) == clean
    clean.encode("utf-8")


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf"), exclude_characters=":@"), max_size=40))
def test_what_is_harmless_stays(raw: str) -> None:
    words = raw.replace("hf_", "").replace("sk-", "")
    assert sanitize(words) == words


HOSTILE = "[bold red]x[/bold red] :smile: [link=https://example.org]y[/link] \x1b[31mz\x1b]0;t\x07 [/nothing]"
HARMLESS = "[bold red]x[/bold red] :smile: [link=https://example.org]y[/link] z [/nothing]"


@pytest.mark.parametrize("way", ["info", "warn", "stage", "success", "plain", "data"])
def test_markup_in_data_is_text(way: str) -> None:
    console, out, err = spoken()
    with getattr(console, way)(HOSTILE) or contextlib.nullcontext():
        pass
    assert HARMLESS in (out if way == "data" else err).getvalue()
    assert "\x1b" not in out.getvalue() + err.getvalue()


def test_markup_in_tables_errors_and_progress_is_text() -> None:
    console, out, err = spoken()
    console.table("[bold]T[/bold]", ["[red]c", "d"], [("[i]1", HOSTILE)], to_stdout=True)
    assert "[bold]T[/bold]" in out.getvalue()
    assert "[red]c" in out.getvalue()
    assert "[i]1" in out.getvalue()
    console.error(UsageError(HOSTILE, hint=HOSTILE), HOSTILE)
    assert err.getvalue() == f"error: {HARMLESS}\nhint: {HARMLESS}\ncontinue with: {HARMLESS}\n"
    with console.progress(HOSTILE, total=2) as progress:
        progress.advance(2, loss=HOSTILE)
    assert HARMLESS in err.getvalue().splitlines()[-1]
    assert "\x1b" not in out.getvalue() + err.getvalue()


def test_a_terminal_gets_no_sequence_from_data() -> None:
    terminal = Terminal()
    console = Console(out=terminal, err=terminal)
    console.data("a\x1b]52;c;eA==\x07b \x1b[2Jc")
    console.table("t", ["\x1b[2Jcolumn"], [("\x9b2Jcell",)], to_stdout=True)
    with console.progress("work\x1b[2J", total=1) as progress:
        progress.update(completed=1, model="\x1b[2Jname")
    written = terminal.getvalue()
    assert "ab c" in written
    assert "\x1b]52" not in written
    assert "\x1b[2J" not in written
    assert "\x9b" not in written


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "GITHUB_ACTIONS", "CLICOLOR_FORCE", "TTY_COMPATIBLE"])
def test_a_pipe_is_a_pipe(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    console, out, err = spoken()
    with console.stage("stage"):
        console.success("done")
    console.warn("careful")
    console.error(UsageError("wrong", hint="do this"))
    console.table("t", ["a"], [(1,)], to_stdout=True)
    assert "\x1b" not in out.getvalue() + err.getvalue()


def test_no_color_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = Terminal()
    Console(err=coloured).error(UsageError("wrong"))
    assert "\x1b[1;31merror: " in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    Console(err=plain).error(UsageError("wrong"))
    assert "31m" not in plain.getvalue()
    assert "error: " in plain.getvalue()


def test_quiet_keeps_warnings_errors_and_data() -> None:
    console, out, err = spoken(quiet=True)
    console.info("info")
    with console.stage("heading"):
        pass
    console.success("success")
    console.table("hidden", ["a"], [(1,)])
    with console.progress("work", total=1) as progress:
        progress.advance()
    assert err.getvalue() == ""
    console.warn("careful")
    console.error(UsageError("wrong"))
    assert err.getvalue() == "warning: careful\nerror: wrong\n"
    console.data("result")
    console.table("shown", ["a"], [(1,)], to_stdout=True)
    assert out.getvalue().startswith("result\n")
    assert "shown" in out.getvalue()


def test_json_is_alone_on_stdout() -> None:
    console, out, err = spoken(json_output=True)
    console.info("info")
    console.data("words")
    console.table("t", ["a"], [(1,)], to_stdout=True)
    console.json({"text": "Ёлка \u2028 [b]", "path": io.StringIO})
    assert json.loads(out.getvalue())["text"] == "Ёлка \u2028 [b]"
    assert err.getvalue() == "info\n"
    with pytest.raises(ValueError, match="JSON compliant"):
        console.json({"loss": float("nan")})


def test_without_json_no_object() -> None:
    console, out, _ = spoken()
    console.json({"a": 1})
    assert out.getvalue() == ""


def test_debug_shows_the_traceback() -> None:
    for debug in (True, False):
        console, _, err = spoken(debug=debug)
        try:
            raise UsageError("wrong with hf_abcdefghijklmnop")
        except UsageError as error:
            console.error(error)
        assert ("Traceback" in err.getvalue()) == debug
        assert "hf_abc" not in err.getvalue()
        assert err.getvalue().endswith("error: wrong with [secret]\n")


def test_tables_are_aligned_and_lines_end_where_the_text_ends() -> None:
    console, out, _ = spoken()
    console.table("T", ["name", "n"], [("long name", 5), ("x", 12345)], numeric=(1,), to_stdout=True)
    lines = out.getvalue().splitlines()
    assert lines == ["", "T", "name            n", "long name       5", "x          12,345", ""]


def test_a_long_cell_is_folded_and_not_cut() -> None:
    console, out, _ = spoken()
    path = "/a/very/long" * 20
    console.table("T", ["name", "path"], [("x", path)], to_stdout=True)
    assert path in "".join(line.removeprefix("x").strip() for line in out.getvalue().splitlines()[3:])
    assert max(map(len, out.getvalue().splitlines())) <= 100


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_a_narrow_terminal(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prose is broken between words; what is copied stays whole; names are not folded for the sake of long texts."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    console = Console(out=terminal, err=terminal)
    prose, command = "word " * 30, "distillkit distill --run /a/path/" + "x" * 60
    console.info(prose)
    console.prose(prose)
    assert max(map(len, terminal.getvalue().splitlines())) <= 60
    console.info(f"it lies in {command}")
    console.error(UsageError("wrong", hint=command), command)
    console.data(command)
    assert terminal.getvalue().splitlines().count(command) == 2
    for line in (f"hint: {command}", f"continue with: {command}"):
        assert line in re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    terminal.truncate(0)
    console.error(UsageError("wrong", hint=prose))
    assert max(map(len, terminal.getvalue().strip("\0").splitlines())) <= 60, "a hint of words alone is prose"
    console.table("A title that is longer than its table " * 2, ["flag", "what"], [("--gradient-accumulation", prose)])
    assert "--gradient-accumulation" in terminal.getvalue()
    assert "A title that is longer than its table A title" in terminal.getvalue()
    terminal.truncate(0)
    terminal.seek(0)
    console.table("T", ["flag", "what"], [("--gradient-accumulation", prose)], to_stdout=True)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize("width", [30, 45, 60, 80])
def test_no_number_is_cut_or_folded(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a number reads like a number; where a table has no room for it, the rows are blocks of lines."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    console = Console(out=terminal, err=terminal)
    columns = ["", "бит на байт", "перплексия", "параметров", "сам заканчивает"]
    rows = [
        ("контроль (без учителя)", "1.6822", 188.31, 134515008, "14 из 24"),
        ("ученик после", "1.6843", 1497.6, 63745344, "10 из 16"),
    ]
    console.table("Результат", columns, rows, numeric=range(1, 5), to_stdout=True)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    for figure in ("1.6822", "188.3", "134,515,008", "14 из 24", "1.6843", "1498", "63,745,344", "10 из 16"):
        assert re.search(rf"(?<!\S){re.escape(figure)}(?!\S)", shown), shown
    assert max(map(len, shown.splitlines())) <= width
    assert ("  параметров: 134,515,008" in shown.splitlines()) == (width <= 60)


def test_a_number_in_a_column_of_text_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    console = Console(out=terminal, err=terminal)
    rows = [("memory_limit_bytes", "134,515,008,000 of 1,000,000,000,000 bytes are taken")] * 2 + [("", "")]
    console.table("T", ["parameter", "value"], [*rows, rows[0]], to_stdout=True)
    shown = terminal.getvalue()
    assert shown.count("134,515,008,000") == shown.count("1,000,000,000,000") == 3


def shown_lines(terminal: Terminal, console: Console) -> list[str]:
    """What the live display draws now."""
    terminal.truncate(0)
    terminal.seek(0)
    console._live.refresh()  # type: ignore[union-attr]
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    return [line.rstrip() for line in text.strip("\0\r\n").splitlines()]


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_the_live_display_fits(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage, work, and its figures, none of them cut; what is least needed of the work goes first."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "xterm")
    terminal, clock = Terminal(), Clock()
    monkeypatch.setattr(console_module, "time", clock)
    console = Console(err=terminal)
    figures = {
        "loss": 1.669,
        "soft loss": 1.21,
        "hard loss": 2.74,
        "held out": "3.731 bits per byte",
        "tokens/s": 2611.0,
    }
    with (
        console.stage("distill", "3 of 6"),
        console.progress("training", total=500, unit="steps") as progress,
        console.progress("held-out score", total=40, unit="texts"),
    ):
        clock.now += 45
        progress.advance(90, memory="1.2 GB", **figures)
        lines = shown_lines(terminal, console)
    assert max(map(len, lines)) <= width
    assert lines[0] == "distill (3 of 6)  0:45"
    assert re.search(r"^. training .*90/500 steps · 3:25 left", lines[1])
    assert ("2 steps/s" in lines[1]) == (width > 50)
    shown = " ".join(lines)
    for words in ("loss 1.669", "soft loss 1.21", "hard loss 2.74", "held out 3.731 bits per byte", "memory 1.2 GB"):
        assert words in shown
    assert "0/40 texts" in lines[-1]


def test_the_live_display_in_an_older_code_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    class OldTerminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    written = io.BytesIO()
    console = Console(err=OldTerminal(written, encoding="cp437"))
    with console.stage("distill"), console.progress("training", total=5) as progress:
        progress.advance(2, loss=1.5)
        console._live.refresh()  # type: ignore[union-attr]
    console.success("done")
    text = written.getvalue().decode("cp437")
    assert "\\u" not in text
    assert "\\x" not in text
    assert "2/5 items" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


class Clock:
    """A clock that a test moves."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_plain_progress_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(console_module, "time", clock)
    console, out, err = spoken()
    with console.progress("training", total=100, unit="steps", completed=20) as progress:
        clock.now += 1
        progress.advance(10, loss=1.23456)
        assert err.getvalue() == "", "a line every ten seconds is enough for a log"
        clock.now += 9
        progress.advance(10)
        clock.now += 30
        progress.update(completed=80, loss=1.0)
    assert err.getvalue().splitlines() == [
        # 20 steps of this attempt took 10 s, and 60 are left.
        "training: 40/100 steps, 0:30 left, loss 1.235",
        "training: 80/100 steps, 0:13 left, loss 1",
        "training: 80 steps in 0:40, loss 1",
    ]
    assert out.getvalue() == ""


def test_nested_work_shares_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log gets one line every ten seconds, however many pieces of work are running, and all of them get their turn."""
    clock = Clock()
    monkeypatch.setattr(console_module, "time", clock)
    console, _, err = spoken()
    with console.progress("outer", total=100) as outer:
        for _ in range(40):
            with console.progress("inner", total=1) as inner:
                clock.now += 1
                inner.advance()
            outer.advance()
    lines = err.getvalue().splitlines()
    assert lines[0] == "outer: 10/100 items, 1:30 left"
    assert len(lines) == 5, "four while it runs, one at the end"


def test_github_folds_stages_and_is_given_no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    hostile = "::error::x\n  ::stop-commands::t\n##[group]y\nstd::vector"
    console, out, err = spoken()

    def failing_stage() -> None:
        with console.stage("distill", "3 of 6"):
            console.info(hostile)
            console.data(hostile)
            raise UsageError("wrong")

    with pytest.raises(UsageError):
        failing_stage()
    harmless = [": :error::x", "  : :stop-commands::t", "## [group]y", "std::vector"]
    assert err.getvalue().splitlines() == ["::group::distill", *harmless, "::endgroup::"]
    assert out.getvalue().splitlines() == harmless
    console, _, err = spoken(quiet=True)
    with console.stage("distill"):
        pass
    assert err.getvalue() == ""
    monkeypatch.delenv("GITHUB_ACTIONS")
    console, out, err = spoken()
    with console.stage("distill"):
        console.data(hostile)
    assert err.getvalue() == "== distill\n"
    assert out.getvalue() == f"{hostile}\n"


def test_failed_progress_says_nothing_of_success() -> None:
    console, _, err = spoken()

    def work() -> None:
        with console.progress("training", total=2) as progress:
            progress.advance()
            raise UsageError("wrong")

    with pytest.raises(UsageError):
        work()
    assert err.getvalue() == ""


def test_the_live_display_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    console = Console(err=terminal)
    with console.progress("outer", total=2, unit="steps") as outer:
        with console.progress("inner", total=1) as inner:
            inner.advance()
        outer.advance(loss=0.5)
        console.warn("in between")
    assert "in between" in terminal.getvalue()
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1, "the cursor is back"


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "–"), (True, "yes"), (False, "no"), (5e-05, "5e-05"), (2.0, "2"), (0.123456, "0.1235"), (123456.7, "123,457"),
     (float("nan"), "NaN"), (float("inf"), "inf"), (9999, "9999"), (10000, "10,000"), ("a\nb\x1b[1m", "a b"), ({}, "{}")],
)  # fmt: skip
def test_values(value: object, words: str) -> None:
    assert format_value(value) == words


def test_durations_and_sizes() -> None:
    assert [format_duration(seconds) for seconds in (-1, 0, 59.6, 75, 3700)] == [
        "0:00",
        "0:00",
        "1:00",
        "1:15",
        "1:01:40",
    ]
    assert [format_bytes(count) for count in (0, 999, 1500, 123456, 2.5e9, 3e13)] == ["0 B", "999 B", "1.5 kB", "123 kB", "2.5 GB", "30.0 TB"]  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        "distillkit distill --run output/a-long-name --epochs 2",
        "distillkit tune --run '/my runs/first one'",
        "distillkit tune --run output/a-long-name",
    ],
)
def test_a_command_in_a_sentence_can_be_copied(command: str) -> None:
    """A line break in it would run its beginning alone."""
    lines = wrapped(
        f"- it was still getting better: go on with {command} (or more text), that brings it nearer", 40
    ).split("\n")
    assert any(command in line for line in lines)
    assert all(len(line) <= 40 for line in lines if "distillkit" not in line)
    assert lines[0] == "- it was still getting better: go on"
    assert len(lines) > 3
