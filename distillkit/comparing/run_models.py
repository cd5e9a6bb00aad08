"""The models of a run as a comparison scores them again: how each reads, and its weights, one at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillkit.comparing.opened import OpenedRun
from distillkit.comparing.readings import Reader
from distillkit.console import Console
from distillkit.data.chat_template import ChatTemplate
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.text_encoder import make_text_encoder
from distillkit.device.precision import Compute, choose_compute
from distillkit.errors import PreconditionError
from distillkit.models.context import context_length
from distillkit.models.load_options import attention_option
from distillkit.models.loading import load_model, load_tokenizer
from distillkit.models.located import LocatedModel
from distillkit.models.locating import locate
from distillkit.models.references import parse_reference
from distillkit.models.usable_ids import MissingRows
from distillkit.run.pair import ModelPair, open_pair
from distillkit.settings import declared
from distillkit.settings.conditions import has_several_teachers
from distillkit.settings.parameters import Parameters, Precision
from distillkit.storage import records_problem
from distillkit.teachers.choices import choose_streaming
from distillkit.teachers.spread import on_one_device, teacher_memory


def config_of(opened: OpenedRun) -> Parameters:
    """The configuration of a run; what an older or newer version called otherwise has its default."""
    given = opened.run.manifest.config
    return Parameters(**{name: value for name, value in given.items() if name in declared.fields()})


def compute_for(opened: OpenedRun, precision: Precision) -> Compute:
    """Device and number formats for all models of a comparison, on this machine: a run may have been made on another one.

    Args:
        opened: its configuration says whether a GPU may be used.
    """
    return choose_compute(dataclasses.replace(config_of(opened), precision=precision, teacher_precision="same"))


class StudentModels:
    """The students of a run: after the training, of the control, before.

    Args:
        opened: it; `kept_student_problem` has none of it.

    Attributes:
        reader: how all of them read.
    """

    def __init__(self, opened: OpenedRun, console: Console) -> None:
        self.opened = opened
        self.config = config_of(opened)
        self._console = console
        self._after = self._located(_student_files(opened)[0])
        self.reader = self._reader()

    def _located(self, folder: Path) -> LocatedModel:
        trust = self.config.trust_remote_code
        located = locate(parse_reference(str(folder)), self._console, trust_remote_code=trust)
        return dataclasses.replace(located, options=attention_option(self.config))

    def _reader(self) -> Reader:
        """The student's folder holds all that it reads with: neither its origin nor its teacher need be there."""
        located, trust = self._after, self.config.trust_remote_code
        tokenizer: Any = load_tokenizer(located, trust_remote_code=trust)
        context = context_length(located, self.config.max_length, trust_remote_code=trust)
        missing = MissingRows.of("student", located, tokenizer)
        encoder = make_text_encoder(
            tokenizer,
            context,
            self.config.max_length,
            needs_bytes=False,
            rows=None if missing is None else missing.rows,
        )
        parse = (self.opened.stats.get("special_tokens") or {}).get("decided") == "parse"
        encoder = dataclasses.replace(encoder, parse=parse, exact=False)
        record = self.opened.stats.get("conversations")
        if not record:
            return Reader(encoder)
        template = ChatTemplate.from_record(record["student"], tokenizer)
        return Reader(encoder, ConversationReader(encoder, template))

    def loaders(self, pair: ModelPair | None) -> dict[str, Callable[[], nn.Module]]:
        """Name to what loads it, fp32 master weights.

        Args:
            pair: models of the run as they came; None where they are not there any more.
        """
        found: dict[str, Callable[[], nn.Module]] = {"after": lambda: self._load(self._after)}
        control = self.opened.run.best_control
        if control is not None and control.is_dir():
            found["control"] = lambda: self._load(self._located(control))
        if pair is not None:
            found["before"] = lambda: pair.load_student(self._console)
        return found

    def _load(self, located: LocatedModel) -> nn.Module:
        trust = self.config.trust_remote_code
        return load_model(located, dtype=torch.float32, trust_remote_code=trust, console=self._console)


def kept_student_problem(opened: OpenedRun) -> PreconditionError | None:
    """Why the student that a run came to cannot be scored: it is not as the training wrote it. None where it can."""
    problem = records_problem(opened.run.path, _student_files(opened)[1])
    if problem is None:
        return None
    return PreconditionError(
        f"{opened.name}: its student has to be scored on the texts of this comparison, and {problem}",
        hint=f"train it again: {opened.command('distill', '--force')}",
    )


def _student_files(opened: OpenedRun) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of the student that the run offers, the best or the final one, and the records of its files."""
    record = opened.run.record("distill")
    outputs = [item.model_dump() for item in record.outputs] if record is not None else []
    for which in ("best", "final"):
        if files := [item for item in outputs if item["path"].startswith(f"student/{which}/")]:
            return opened.run.student / which, files
    return opened.run.best_student, [{"path": "student/final", "size": 0, "sha256": ""}]


class TeacherModel:
    """The teacher of a run, where it can be scored here.

    Args:
        pair: of the run.

    Attributes:
        key: equal for teachers that score the same texts alike.
        reader: how it reads.
        problem: why it cannot be scored, "served", "several" (their mixture is no model) or "too large"; None where it can.
    """

    def __init__(self, opened: OpenedRun, pair: ModelPair, compute: Compute, console: Console) -> None:
        self._pair, self._compute, self._console = pair, compute, console
        self.problem: str | None = None
        if pair.teacher.is_served:
            self.problem = "served"
        elif has_several_teachers(vars(pair.config)):
            self.problem = "several"
        elif choose_streaming(on_one_device(pair.config), teacher_memory(pair, compute)).on:
            self.problem = "too large"
        if self.problem is not None:
            return
        encoders = pair.text_encoders(pair.config)
        templates = pair.templates(encoders)
        chats = None if templates is None else templates.readers(encoders)[1]
        self.reader = Reader(dataclasses.replace(encoders.teacher, exact=False), chats)
        template = (opened.stats.get("conversations") or {}).get("teacher")
        self.key = (pair.teacher.fingerprint(), encoders.teacher.parse, str(template))

    def load(self) -> nn.Module:
        """Its weights in the format that it computes in."""
        return self._pair.load_teacher(self._compute.teacher, self._console)


def pair_of(opened: OpenedRun, console: Console) -> ModelPair:
    """Teacher and student of a run as they came.

    Raises:
        DistillkitError: one is not there any more, or has changed.
    """
    return open_pair(config_of(opened), opened.run, console)
