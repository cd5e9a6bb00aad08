"""The student that is exported: one of a run whose training is complete, with its files as the run wrote them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.data.examples import load_examples
from distillkit.data.text_encoder import TextEncoder, make_text_encoder
from distillkit.errors import PreconditionError, UsageError
from distillkit.evaluation.bits_per_byte import ScoredText
from distillkit.evaluation.held_out import scored_texts
from distillkit.models.context import context_length
from distillkit.models.loading import load_tokenizer
from distillkit.models.located import LocatedModel
from distillkit.models.locating import locate
from distillkit.models.references import parse_reference
from distillkit.run.directory import RunDirectory

CARD = "README.md"
# Tokens of the held-out texts that an export is checked on: enough to see a wrong weight, a few seconds to read.
_CHECKED_TOKENS = 4096


@dataclass(frozen=True)
class CheckTexts:
    """Held-out texts of the run, by which an export is compared with the student.

    Attributes:
        scored: as the student reads them.
        texts: themselves.
    """

    scored: list[ScoredText]
    texts: list[str]


@dataclass(frozen=True)
class ChosenStudent:
    """A student of a run.

    Attributes:
        run: it.
        which: `best` or `final`.
        located: its folder; of one that was kept as an adapter, a folder of the cache in which both lie merged.
        tokenizer: as transformers loads it from there.
        trust_remote_code: whether the run trusted code that comes with models.
    """

    run: RunDirectory
    which: str
    located: LocatedModel
    tokenizer: Any
    trust_remote_code: bool

    @property
    def folder(self) -> Path:
        return self.located.folder

    @property
    def written(self) -> Path:
        """Its folder as the run wrote it."""
        return self.run.student / self.which

    @property
    def is_adapter(self) -> bool:
        """Whether the run kept it as an adapter."""
        return self.located.reference.kind == "adapter"

    def check_texts(self) -> CheckTexts:
        """The first held-out texts, at most 4096 tokens of them.

        Raises:
            PreconditionError: the run's data cannot be read.
        """
        try:
            examples = load_examples(self.run.data / "test").to_list()
        except (OSError, ValueError) as error:
            raise PreconditionError(
                f"{self.run.data / 'test'} cannot be read, and an export is checked on these texts: {error}",
                hint=f"prepare the data again: distillkit prepare-data --run {shlex.quote(str(self.run.path))} --force",
            ) from error
        taken, tokens = [], 0
        for example in examples:
            if taken and tokens + len(example["student_ids"]) > _CHECKED_TOKENS:
                break
            taken.append(example)
            tokens += len(example["student_ids"])
        return CheckTexts(scored_texts(taken, self._encoder(), "student"), [example["text"] for example in taken])

    def _encoder(self) -> TextEncoder:
        longest = int(self.run.manifest.config["max_length"])
        context = context_length(self.located, longest, trust_remote_code=self.trust_remote_code)
        return make_text_encoder(self.tokenizer, context, longest, needs_bytes=False)


def choose_student(run: RunDirectory, which: str | None, console: Console) -> ChosenStudent:
    """The student of a run.

    Args:
        which: `best` or `final`; None: the one that the run offers.

    Raises:
        UsageError: there is no such student.
        PreconditionError: its training is not complete, or its files are not as the run wrote them.
    """
    record, again = run.record("distill"), f"distillkit distill --run {shlex.quote(str(run.path))}"
    if record is None or record.status != "complete":
        raise _with_command(f"{run.path}: the training is not complete, so there is no student to export", again)
    if (problem := run.output_problem("distill")) is not None:
        raise _with_command(f"{run.path}: the student is damaged: {problem}", f"{again} --force")
    folder = run.best_student if which is None else run.student / which
    if not folder.is_dir():
        kept = ", ".join(sorted(path.name for path in run.student.iterdir() if path.is_dir()))
        raise UsageError(f"--which {which}: {run.path} keeps no such student", hint=f"it keeps: {kept}")
    trust = bool(run.manifest.config.get("trust_remote_code"))
    located = locate(parse_reference(str(folder)), console, trust_remote_code=trust)
    return ChosenStudent(run, folder.name, located, load_tokenizer(located, trust_remote_code=trust), trust)


def _with_command(message: str, command: str) -> PreconditionError:
    error = PreconditionError(message, hint=f"run: {command}")
    error.next_command = command
    return error
