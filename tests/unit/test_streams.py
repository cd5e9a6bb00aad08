"""Streams that are closed, full, or lack characters: what is shown gets as far as it can, and nothing breaks."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distillkit.console import Console
from distillkit.errors import DistillkitError
from distillkit.streams import OutputStream

# Started by a shell, as nothing else starts a program without streams.
_PROGRAM = (
    "import os, sys; from distillkit.streams import open_closed_streams; open_closed_streams(); "
    "opened = os.open({path!r}, os.O_RDWR | os.O_CREAT); print('to nobody'); os.write(2, b'x'); sys.exit(opened)"
)


def ascii_stream() -> tuple[io.BytesIO, io.TextIOWrapper]:
    held = io.BytesIO()
    return held, io.TextIOWrapper(held, encoding="ascii", write_through=True)


def test_signs_become_plain_ones_and_letters_become_escapes() -> None:
    held, stream = ascii_stream()
    console = Console(err=stream)
    console.success("fertig: é “x” → …")
    assert held.getvalue() == b'ok: fertig: \\xe9 "x" -> ...\n'


def test_json_stays_json() -> None:
    held, stream = ascii_stream()
    value = {"text": "é 漢 \U0001f600 ✓"}
    Console(json_output=True, out=stream).json(value)
    assert json.loads(held.getvalue()) == value
    # Of a folder whose name is not UTF-8.
    held = io.BytesIO()
    stream = io.TextIOWrapper(held, encoding="utf-8", write_through=True)
    Console(json_output=True, out=stream).json({"a": "\udcff"})
    assert json.loads(held.getvalue()) == {"a": "\udcff"}


def test_tables_and_progress_without_unicode() -> None:
    held, stream = ascii_stream()
    console = Console(err=stream)
    console.table("Größe", ["a", "b"], [("x", None)])
    with console.progress("läuft", total=2) as display:
        display.advance(2)
    assert b"Gr\\xf6\\xdfe" in held.getvalue()


@pytest.mark.parametrize("closed", [False, True])
def test_no_stream_takes_everything(closed: bool) -> None:
    gone = io.StringIO()
    gone.close()
    stream = OutputStream(gone if closed else None, "standard output")
    assert stream.write("text") == 4
    stream.flush()
    assert not stream.isatty()


def test_a_full_stream_is_one_clear_error() -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DistillkitError, match="cannot write to standard output: No space left"):
        Console(json_output=True, out=Full()).json({"a": 1})


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_file_never_gets_the_number_of_a_closed_stream(
    tmp_path: Path, cli_env: Callable[..., dict[str, str]], redirection: str
) -> None:
    path = tmp_path / "file"
    program = _PROGRAM.format(path=str(path))
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, program], env=cli_env(), check=False
    )
    assert done.returncode > 2
    assert path.read_bytes() == b""
