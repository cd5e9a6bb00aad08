"""Teacher and student of a run: located once, remembered in the run, and proven unchanged later."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillkit.console import Console
from distillkit.data.template_choice import TemplatePair
from distillkit.data.text_encoder import TextEncoder, TextEncoders, make_text_encoder
from distillkit.errors import PreconditionError
from distillkit.installing import provide
from distillkit.models.context import context_length
from distillkit.models.load_options import attention_option, load_options
from distillkit.models.loading import load_model, load_student, load_tokenizer
from distillkit.models.located import LocatedModel
from distillkit.models.locating import load_adapted, locate
from distillkit.models.model_files import refuse_twice_quantised
from distillkit.models.plain_folder import has_adapter
from distillkit.models.references import (
    ModelReference,
    is_adapter_folder,
    parse_reference,
    parse_student_reference,
    parse_teacher_reference,
)
from distillkit.models.requirements import libraries_for_files
from distillkit.models.usable_ids import MissingRows, add_rows
from distillkit.run.directory import RunDirectory
from distillkit.settings.parameters import Parameters

# In data/: the student before training, where its weights are not simply the teacher's.
START = "start"


@dataclass
class ModelPair:
    """The two models of a run.

    Attributes:
        teacher: where the teacher lies; of one behind a server `LocatedModel.is_served` holds, and it cannot be loaded.
        student: where the student lies; the teacher's place for "the teacher with N layers kept". `teacher:auto` becomes the
            shape that was chosen once the data are prepared.
        student_reference: as given, which says how the student is made.
        same_tokenizer: known once the data are prepared.
        missing_rows: the tokens of each model that its embedding has no row for, known with the text encoders.
        student_rows: to how many rows the student's embedding is resized, known then too; None: it stays as it is.
        parse: whether names of special tokens in texts are the tokens; likewise.
        conversations: how conversations are read, `conversations` of data/stats.json; None where the texts are none.
        layers: of a student cut from the teacher, which it keeps, known once the data are prepared; None where that was not
            recorded: as its reference says, evenly spaced.
        start: the folder of such a student's own weights, where they are no longer the teacher's.
        further: the teachers besides the first, while the data are prepared for them (`run.further_teachers`).
    """

    config: Parameters
    teacher: LocatedModel
    student: LocatedModel
    same_tokenizer: bool | None = None
    missing_rows: dict[str, MissingRows | None] = field(default_factory=dict)
    student_rows: int | None = None
    parse: bool = False
    conversations: dict[str, Any] | None = None
    layers: list[int] | None = None
    start: Path | None = None
    further: list[LocatedModel] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """For the manifest and data/models.json."""
        made: dict[str, Any] = {} if self.student_rows is None else {"rows": self.student_rows}
        if self.layers is not None:
            made |= {"layers": self.layers, "start": START if self.start is not None else None}
        return {
            "teacher": described(self.teacher),
            "student": {**self.student.describe(), "fingerprint": self.student.fingerprint(), **made},
            **({"extra_teachers": [described(model) for model in self.further]} if self.further else {}),
        }

    def take_record(self, recorded: dict[str, Any], data: Path) -> None:
        """Take from data/models.json how the student is made.

        Args:
            recorded: what `record` gave, of this or an older version.
            data: the folder in which it lies.

        Raises:
            KeyError: it is not of this form.
        """
        student = recorded["student"]
        self.student = replace(self.student, reference=settled_reference(self.student.reference, student["reference"]))
        self.student_rows, self.layers = student.get("rows"), student.get("layers")
        start = student.get("start")
        self.start = None if start is None else data / start

    def take_from(self, stats: dict[str, Any]) -> None:
        """Take what was decided when the data were prepared.

        Args:
            stats: data/stats.json.

        Raises:
            KeyError: it is not of this form.
        """
        self.same_tokenizer = bool(stats["same_tokenizer"])
        self.parse = stats.get("special_tokens", {}).get("decided") == "parse"
        self.conversations = stats.get("conversations")

    def text_encoders(self, config: Parameters, console: Console | None = None) -> TextEncoders:
        """How both models read.

        Args:
            console: where it is reported that a context cuts the length, or that a start or end token is missing;
                None where it has been reported before.

        Raises:
            PreconditionError: a tokenizer cannot be loaded, or the bytes of its tokens cannot be known.
        """
        encoders: dict[str, TextEncoder] = {}
        roles = {"teacher": self.teacher, "student": self.student}
        if self.teacher.is_served:
            del roles["teacher"]
        for role, located in roles.items():
            # A part of the teacher reads with the teacher's tokenizer, which need not be loaded a second time.
            shared = encoders.get("teacher") if located.folder == self.teacher.folder else None
            tokenizer = (
                load_tokenizer(located, trust_remote_code=config.trust_remote_code, console=console)
                if shared is None
                else shared.tokenizer
            )
            # A teacher with another tokenizer may need more tokens for the same text than the student.
            wanted = config.max_length if role == "student" else 2 * config.max_length
            context = context_length(located, wanted, trust_remote_code=config.trust_remote_code)
            longest = config.max_length if role == "student" else context or wanted
            if console is not None and has_adapter(located.folder) and located.reference.layers is None:
                console.info(
                    f"the {role}: an adapter lies beside its weights (adapter_config.json): it is not put on top of them"
                )
            if console is not None and context is not None and context < config.max_length:
                console.info(f"the {role}'s context is {context} tokens: examples are cut to it")
            missing = self.missing_rows[role] = MissingRows.of(role, located, tokenizer)
            rows = self.student_rows if role == "student" else None
            encoders[role] = make_text_encoder(
                tokenizer, context, longest, needs_bytes=config.box_type == "white",
                rows=rows if rows is not None or missing is None else missing.rows,
                table=None if shared is None else shared.table,
            )  # fmt: skip
            if console is not None:
                _report_missing_ends(role, tokenizer, console)
        # A server reads texts, whatever its tokens are.
        encoders.setdefault("teacher", encoders["student"])
        exact = config.box_type == "white" and not self.same_tokenizer
        made = TextEncoders(encoders["student"], encoders["teacher"]).reading(parse=self.parse, exact=exact)
        templates = self.templates(made)
        return made if templates is None else templates.marked(made)

    def templates(self, encoders: TextEncoders) -> TemplatePair | None:
        """The chat templates that the data were prepared with; None where the texts are no conversations."""
        return None if self.conversations is None else TemplatePair.from_record(self.conversations, encoders)

    def check_rows_around(self, encoders: TextEncoders, console: Console) -> None:
        """Both models can read what is put around every text; a student gets rows for it.

        Raises:
            PreconditionError: the teacher cannot.
        """
        for role, encoder in (("teacher", encoders.teacher), ("student", encoders.student)):
            if (missing := self.missing_rows.get(role)) is not None:
                met = missing.around(encoder.start_id, encoder.end_id)
                self._provide_rows(missing, met if role == "student" else _without(met, missing.needed), console)

    def check_rows_inside(self, texts: dict[str, Callable[[], Iterable[Sequence[int]]]], console: Console) -> None:
        """The same for the tokens inside the texts; says what is left without a row.

        Args:
            texts: by role, gives the texts as that model reads them.

        Raises:
            PreconditionError: the teacher cannot read one.
        """
        for role, read in texts.items():
            missing = self.missing_rows.get(role)
            if missing is None or (role == "student" and self.student_rows is not None):
                continue
            met = missing.inside(read())
            self._provide_rows(missing, met, console)
            if not met and missing.tokens:
                console.info(missing.unread())

    def _provide_rows(self, missing: MissingRows, met: dict[int, str], console: Console) -> None:
        if met and missing.role == "teacher":
            raise missing.refused(met)
        if met:
            self.student_rows = missing.size
            console.info(missing.resized(met))

    def load_teacher(
        self,
        dtype: torch.dtype,
        console: Console,
        *,
        instead: LocatedModel | None = None,
        places: dict[str, Any] | None = None,
    ) -> nn.Module:
        """The teacher, frozen by the caller.

        Args:
            instead: what the teacher has become; default: the teacher as it came.
            places: as for `load_model`.

        Raises:
            PreconditionError, UsageError: as `load_model`.
        """
        located, trust = instead or self.teacher, self.config.trust_remote_code
        if located.is_served:
            raise AssertionError("a teacher without weights here cannot be loaded")
        return load_model(located, dtype=dtype, trust_remote_code=trust, console=console, places=places)

    def load_student(self, console: Console) -> nn.Module:
        """The student before training, master weights in fp32.

        Raises:
            PreconditionError, UsageError: as `distillkit.models.loading.load_student`; its embedding cannot be resized.
        """
        trust = self.config.trust_remote_code
        if self.start is not None:
            located = LocatedModel(self.student.reference, self.start, options=self.student.options)
            student = load_model(located, dtype=torch.float32, trust_remote_code=trust, console=console)
        else:
            student = load_student(self.student, trust_remote_code=trust, console=console, layers=self.layers)
        if self.student_rows is not None:
            add_rows(student, self.student_rows, self.student.reference.text)
        return student

    def load_trained_student(self, folder: Path, console: Console) -> nn.Module:
        """A student that this run has exported.

        Raises:
            PreconditionError: it is not there or damaged.
        """
        trust, options = self.config.trust_remote_code, attention_option(self.config)
        if is_adapter_folder(folder):
            return load_adapted(folder, torch.float32, console, trust_remote_code=trust, options=options)
        located = locate(parse_reference(str(folder)), console, trust_remote_code=trust)
        return load_model(
            replace(located, options=options), dtype=torch.float32, trust_remote_code=trust,
            console=console,
        )  # fmt: skip


def described(model: LocatedModel) -> dict[str, Any]:
    """A model for the manifest and data/models.json."""
    return {**model.describe(), "fingerprint": model.fingerprint()}


def _without(met: dict[int, str], ids: frozenset[int]) -> dict[int, str]:
    """A teacher is only read with: padding of its own it can do without."""
    return {index: where for index, where in met.items() if index not in ids}


def _report_missing_ends(role: str, tokenizer: Any, console: Console) -> None:
    if tokenizer.eos_token_id is None:
        console.info(f"the {role}'s tokenizer has no end-of-text token: none is used")
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        console.info(f"the {role}'s tokenizer has no beginning-of-text token: none is used")
    elif tokenizer.bos_token_id is None:
        console.info(
            f"the {role}'s tokenizer has no beginning-of-text token: its end-of-text token {tokenizer.eos_token} stands in "
            "front of every text"
        )


def locate_pair(config: Parameters, console: Console) -> ModelPair:
    """Find both models, downloading what is not here yet.

    Raises:
        UsageError: a reference or a local path is wrong.
        PreconditionError: a model is out of reach or cannot be used.
    """
    trust = config.trust_remote_code
    reference, teacher = parse_teacher_reference(config), None
    wanted = parse_student_reference(config)
    if reference.served is None and reference.kind != "logprobs":
        cut = wanted.kind == "pruned-teacher"
        teacher = locate(reference, console, trust_remote_code=trust, role="teacher", cut=cut)
    adapted = config.adapter != "none"
    student = locate(
        wanted,
        console,
        trust_remote_code=trust,
        teacher=teacher,
        role="student",
        adapted=adapted,
    )
    if teacher is not None and config.teacher_precision == "int8":
        refuse_twice_quantised(teacher)
    teacher = teacher or LocatedModel(reference, student.folder)
    for located in (teacher, student):
        needed = libraries_for_files(path.name for path in located.folder.iterdir())
        provide(needed, located.reference.text, console, allowed=config.install_deps)
    teacher, student = (
        replace(located, options=load_options(config, role))
        for role, located in (("teacher", teacher), ("student", student))
    )
    return ModelPair(config, teacher, student)


def open_pair(config: Parameters, run: RunDirectory, console: Console) -> ModelPair:
    """The pair that the data of a run were prepared for.

    Raises:
        PreconditionError: a model or tokenizer is not the one that it was then.
    """
    pair = locate_pair(config, console)
    recorded = json.loads((run.data / "models.json").read_text(encoding="utf-8"))
    pair.take_record(recorded, run.data)
    for role, located in (("teacher", pair.teacher), ("student", pair.student)):
        if located.fingerprint() != recorded[role]["fingerprint"]:
            raise PreconditionError(
                f"the {role} has changed since prepare-data: its files are not the same any more",
                hint=f"prepare the data again: distillkit prepare-data --run {run.path} --force",
            )
    stats = json.loads((run.data / "stats.json").read_text(encoding="utf-8"))
    pair.take_from(stats)
    return pair


def settled_reference(reference: ModelReference, recorded: str) -> ModelReference:
    """The student as it was settled when the data were prepared: `teacher:auto` has become one shape since.

    Args:
        reference: as the configuration names it.
        recorded: how data/models.json names it.
    """
    if not reference.automatic:
        return reference
    settled = parse_reference(recorded, role="student")
    return settled if settled.kind == reference.kind else reference
