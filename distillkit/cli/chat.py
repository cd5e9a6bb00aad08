"""`distillkit chat`: a conversation with one model of a run, in the terminal or through a pipe.

Answers go to stdout as they are written; everything else goes to stderr. Each line of a pipe is a question.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from typing import IO

from distillkit.chatting.partner import ChatPartner
from distillkit.chatting.typed_lines import lines_of
from distillkit.cli.request import Request, check_surroundings
from distillkit.console import Console
from distillkit.errors import Interrupted, UsageError
from distillkit.interrupts import graceful_signals, pending
from distillkit.models.answering import Answer, AnswerSettings
from distillkit.pipeline.opening import open_run

COMMANDS = {"/reset": "begin a new conversation", "/quit": "end (also /exit, or Ctrl-D)", "/help": "show this"}
_QUIT = ("/quit", "/exit")


@dataclass(frozen=True)
class ChatOptions:
    """What was given on the command line.

    Attributes:
        who: teacher, before or after.
        json_lines: one JSON object for each answer.
    """

    who: str = "after"
    system: str | None = None
    temperature: float = 0.7
    top_p: float = 0.9
    longest: int = 512
    seed: int = 0
    json_lines: bool = False

    def settings(self) -> AnswerSettings:
        """How answers are drawn.

        Raises:
            UsageError: a value that nothing can be drawn with.
        """
        try:
            return AnswerSettings(self.temperature, self.top_p, self.longest)
        except ValueError as error:
            raise UsageError(str(error), hint="--temperature is 0 or more, --top-p in (0, 1]") from error


def run_chat(options: ChatOptions, console: Console, *, run: str | None, output_dir: str) -> None:
    """Open the run, load the model, talk until the end of input."""
    from distillkit.chatting.open_partner import open_partner

    check_surroundings(console)
    settings = options.settings()
    directory, resolved = open_run(Request({}, environment={}).resolve, run, output_dir)
    console.info(f"run directory: {directory.path}")
    partner = open_partner(
        options.who,
        resolved.parameters,
        directory,
        console,
        settings=settings,
        seed=options.seed,
        system=options.system,
    )
    Chat(partner, console, options.json_lines).talk(sys.stdin)


class Chat:
    """The loop of questions and answers.

    Args:
        json_lines: one JSON object for each answer instead of its text.
    """

    def __init__(self, partner: ChatPartner, console: Console, json_lines: bool = False) -> None:
        self.partner = partner
        self.console = console
        self.json_lines = json_lines

    def talk(self, source: IO[str]) -> None:
        """Answer until the input ends.

        Raises:
            Interrupted: Ctrl-C while a question is awaited, or SIGTERM.
            UsageError: with a pipe: a question that cannot be answered.
        """
        typing = source.isatty() and self.console.interactive
        if typing:
            self.console.info(f"{self.partner.name}; {'; '.join(f'{name}: {what}' for name, what in COMMANDS.items())}")
        for line in lines_of(source, typing=typing):
            question = line.strip()
            if question in _QUIT:
                return
            if question == "/reset":
                self.partner.reset()
                self.console.info("a new conversation")
            elif typing and question.startswith("/"):
                self.console.info("; ".join(f"{name}: {what}" for name, what in COMMANDS.items()))
            elif question:
                self._ask(question, typing=typing)

    def _ask(self, question: str, *, typing: bool) -> None:
        try:
            with graceful_signals():
                show = (lambda piece: None) if self.json_lines else self.console.stream
                answer, left_out = self.partner.answer(question, show, lambda: pending() is not None)
                received = pending()
        except UsageError as error:
            if not typing:
                raise
            self.console.error(error)
            return
        self._finish(question, answer)
        if left_out:
            self.console.info(f"the context is full: the oldest {left_out} turns are left out")
        if received is not None and not (typing and received == signal.SIGINT):
            raise Interrupted(received)
        if answer.finish != "end" and not self.json_lines:
            why = {"length": f"cut off after {answer.tokens:,} tokens", "stopped": "stopped"}[answer.finish]
            self.console.info(f"({why})")

    def _finish(self, question: str, answer: Answer) -> None:
        if not self.json_lines:
            self.console.stream("\n")
            return
        said = {
            "question": question, "answer": answer.text, "finish": answer.finish, "tokens": answer.tokens,
            "seconds": round(answer.seconds, 3),
        }  # fmt: skip
        self.console.stream(json.dumps(said, ensure_ascii=True) + "\n")
