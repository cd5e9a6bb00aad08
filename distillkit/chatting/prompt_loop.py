"""Texts of standard input, line by line, which all models of a run go on with."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence

from distillkit.chatting.sampling import Sampling
from distillkit.chatting.side_by_side import SideBySide, check_prompts
from distillkit.chatting.side_by_side_words import show_texts
from distillkit.chatting.typed_lines import lines_of
from distillkit.chatting.writing import Writer
from distillkit.console import Console
from distillkit.errors import Interrupted, UsageError
from distillkit.interrupts import graceful_signals, pending


class PromptLoop:
    """Line after line, continued by all models, which stay loaded."""

    def __init__(self, models: SideBySide, sampling: Sampling, console: Console) -> None:
        self.models = models
        self.sampling = sampling
        self.console = console
        self._writers: dict[str, Writer] = {}

    def talk(self, prompts: Sequence[str]) -> None:
        """Begin with `prompts`, go on until the input ends or `/quit`."""
        with self.console.progress("loading", total=len(self.models.names), unit="models") as progress:
            for name in self.models.names:
                self._writers[name] = self.models.load(name)
                progress.advance()
        typing = sys.stdin.isatty() and self.console.interactive
        for prompt in prompts:
            self._go_on(prompt, typing=typing)
        if typing:
            self.console.info(self.console.say("demo.typing"))
        for line in lines_of(sys.stdin, typing=typing):
            prompt = line.strip()
            if prompt in ("/quit", "/exit"):
                return
            if prompt:
                self._go_on(prompt, typing=typing)

    def _go_on(self, prompt: str, *, typing: bool) -> None:
        try:
            with graceful_signals():
                check_prompts([prompt])
                written = {}
                for name, writer in self._writers.items():
                    written[name] = [writer.write(prompt, self.sampling, lambda: pending() is not None)]
                    if pending() is not None:
                        break
                received = pending()
        except UsageError as error:
            if not typing:
                raise
            self.console.error(error)
            return
        found = self.models.record([prompt], written, self.sampling)
        if self.console.json_output:
            self.console.stream(json.dumps({"command": "demo", "demo": found}, ensure_ascii=True) + "\n")
        else:
            show_texts(found, self.console)
        if received is not None and not (typing and received == signal.SIGINT):
            raise Interrupted(received)
