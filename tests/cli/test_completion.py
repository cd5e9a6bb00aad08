"""Shell completion in a real shell at a terminal: what a Tab makes of a line."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SHELLS = {
    "bash": (["bash", "--noprofile", "--norc", "-i"], "PS1=READY"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit && compinit -u -D && PS1=READY"),
}


class Terminal:
    """A program at a terminal."""

    def __init__(self, words: list[str], environment: dict[str, str], cwd: Path) -> None:
        self.own, other = pty.openpty()
        self.process = subprocess.Popen(
            words, stdin=other, stdout=other, stderr=other, env=environment, cwd=cwd, start_new_session=True
        )
        os.close(other)
        self.seen = ""

    def type(self, keys: str, until: str, seconds: float = 60) -> str:
        """Type, and wait until what the terminal shows from then on matches; gives that, without escape sequences."""
        self.seen = ""
        os.write(self.own, keys.encode())
        ends = time.monotonic() + seconds
        while not re.search(until, self.seen):
            readable, _, _ = select.select([self.own], [], [], max(0, ends - time.monotonic()))
            assert readable, f"{until!r} did not come: {self.seen!r}"
            self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r|\x07|.\x08", "", os.read(self.own, 4096).decode())
        return self.seen

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.own)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no terminals of this kind")
@pytest.mark.parametrize("shell", list(SHELLS))
def test_a_tab(shell: str, tmp_path: Path, cli_env: Callable[..., dict[str, str]]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "distillkit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m distillkit "$@"\n', encoding="utf-8")
    (programs / "distillkit").chmod(0o755)
    environment = cli_env(PATH=f"{programs}{os.pathsep}{os.environ['PATH']}", TERM="dumb", COLUMNS="200", HISTFILE="")
    script = subprocess.run(
        ["distillkit"], env={**environment, "_DISTILLKIT_COMPLETE": f"source_{shell}"}, capture_output=True, check=True
    )
    (tmp_path / "script").write_bytes(script.stdout)
    words, prepare = SHELLS[shell]
    terminal = Terminal(words, environment, tmp_path)
    try:
        terminal.type(f"{prepare}\n", r"READY$")
        terminal.type(". ./script; echo LO''ADED\n", r"LOADED[\s\S]*READY$")
        terminal.type("distillkit impo\t", r"distillkit import-logprobs ")
        terminal.type("\x15distillkit distill --teacher-prec\t", r"--teacher-precision ")
        terminal.type("\x15distillkit exp\t", r"distillkit export ")
    finally:
        terminal.close()
