"""The further teachers of a run: found, their reading of the examples prepared, and proven unchanged later.

Each is paired with the student as the first teacher is, and read by the same code: a `ModelPair`, text encoders and a chat template
of its own, and examples of its own in data/teachers/N/, where the student's side is that of data/ itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.data.conversation_examples import ConversationExampleBuilder
from distillkit.data.example_builder import ExampleBuilder
from distillkit.data.examples import load_examples, stored_rows
from distillkit.data.further_readings import FurtherReading, coverage
from distillkit.data.prepared_parts import PreparedPart
from distillkit.data.special_tokens import SpecialTokenReading, same_tokens
from distillkit.data.stored_rows import StoredRows
from distillkit.data.template_choice import TemplatePair, further_template, read_template
from distillkit.data.text_encoder import TextEncoder, TextEncoders
from distillkit.errors import PreconditionError
from distillkit.installing import provide
from distillkit.models.licence import licence_of
from distillkit.models.load_options import load_options
from distillkit.models.located import LocatedModel
from distillkit.models.locating import locate
from distillkit.models.model_files import refuse_twice_quantised
from distillkit.models.references import parse_reference
from distillkit.models.requirements import libraries_for_files
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import ModelPair
from distillkit.settings.conditions import has_several_teachers
from distillkit.settings.parameters import Parameters
from distillkit.settings.teacher_values import extra_names

TEACHERS = "teachers"
KEY = "extra_teachers"
"""Of data/models.json and data/stats.json: a list, the second teacher first."""

# Below this a teacher reaches too little of the text to be worth its time.
_LOW_COVERAGE = 0.5
# The parts that a teacher reads: the students alone are scored on the validation part.
_PARTS = ("train", "test")


def examples_of(data: Path, number: int, part: str) -> Path:
    """Where the examples lie as a teacher reads them.

    Args:
        data: the folder of the prepared data.
        number: of the teacher, from 2.
        part: "train" or "test".
    """
    return data / TEACHERS / str(number) / part


def locate_further(config: Parameters, console: Console) -> list[LocatedModel]:
    """Find the teachers that `extra_teachers` names, downloading what is not here yet; [] without any.

    Raises:
        UsageError: a name or a local path is wrong.
        PreconditionError: a model is out of reach or cannot be used.
    """
    found: list[LocatedModel] = []
    for name in extra_names(config.extra_teachers) if has_several_teachers(vars(config)) else ():
        reference = parse_reference(name, role="extra")
        located = locate(reference, console, trust_remote_code=config.trust_remote_code, role="teacher")
        if config.teacher_precision == "int8":
            refuse_twice_quantised(located)
        needed = libraries_for_files(path.name for path in located.folder.iterdir())
        provide(needed, name, console, allowed=config.install_deps)
        found.append(replace(located, options=load_options(config, "teacher")))
    return found


@dataclass(frozen=True)
class FurtherTeacher:
    """One of them beside the student.

    Attributes:
        number: from 2.
        pair: it and the student.
        encoders: how both read.
        templates: their chat templates; None where the texts are no conversations.
        one_tokenizer: whether both would read the same tokens, if their templates did not differ.
    """

    number: int
    pair: ModelPair
    encoders: TextEncoders
    templates: TemplatePair | None
    one_tokenizer: bool

    @property
    def name(self) -> str:
        """For messages."""
        return f"teacher {self.number} ({self.pair.teacher.reference.text})"

    @property
    def same_tokenizer(self) -> bool:
        """Whether it reads the student's tokens."""
        return bool(self.pair.same_tokenizer)


def further_teachers(
    pair: ModelPair,
    config: Parameters,
    special: SpecialTokenReading,
    templates: TemplatePair | None,
    console: Console,
) -> list[FurtherTeacher]:
    """Each beside the student, for texts that are about to be prepared.

    Args:
        pair: of the first teacher; has found the others.
        special: how special tokens in the texts are read.
        templates: of the student and the first teacher.

    Raises:
        PreconditionError: a tokenizer cannot be loaded, its bytes cannot be known, or its model has no row for a token.
    """
    found: list[FurtherTeacher] = []
    given = None if config.chat_template is None else read_template(config.chat_template)
    for number, model in enumerate(pair.further, 2):
        own = replace(
            pair,
            teacher=model,
            missing_rows={},
            conversations=None,
            parse=special.parse,
            same_tokenizer=True,
            further=[],
        )
        encoders = own.text_encoders(config)
        own.missing_rows.pop("student", None)  # The first pair has seen to it.
        own.check_rows_around(encoders, console)
        one = same_tokens(encoders, special)
        same, own_templates = one, None
        if templates is not None:
            theirs = further_template(encoders.teacher, given, f"teacher {number}")
            own_templates = TemplatePair(templates.student, theirs)
            encoders = own_templates.marked(encoders)
            same = one and own_templates.same(encoders)
        own.same_tokenizer = same
        encoders = encoders.reading(parse=special.parse, exact=not same)
        found.append(FurtherTeacher(number, own, encoders, own_templates, one))
    return found


def shortest(student: TextEncoder, teachers: list[FurtherTeacher]) -> TextEncoder:
    """How the student reads, no more at a time than fits into every further teacher that reads the same tokens."""
    limits = [teacher.encoders.teacher.limit for teacher in teachers if teacher.same_tokenizer]
    return replace(student, limit=min([student.limit, *limits]))


def prepare_further(
    teachers: list[FurtherTeacher], examples: Mapping[str, PreparedPart], student: TextEncoder, config: Parameters,
    drafts: Path, console: Console, *, first_is_paired: bool,
) -> dict[str, Any]:  # fmt: skip
    """Write the examples as each further teacher reads them, below `drafts`.

    Args:
        examples: of the student and the first teacher.
        student: how the student has read them.
        first_is_paired: whether the first teacher reads other tokens than the student.

    Returns:
        What data/stats.json tells: of each name, tokens, coverage, chat templates, what it does not read; and how much of the
        student's predictions they guide together. {} without any.

    Raises:
        PreconditionError: its model has no row for a token that is met.
    """
    records: list[dict[str, Any]] = []
    for teacher in teachers:
        parts: dict[str, PreparedPart] = {}
        unread, shortened = {}, 0
        for part in _PARTS:
            reading = FurtherReading(_builder(teacher, student, config), shortens=part == "train")
            folder = examples_of(drafts, teacher.number, part)
            folder.parent.mkdir(parents=True, exist_ok=True)
            parts[part] = PreparedPart.write(reading.read(examples[part].rows), folder)
            unread[part], shortened = reading.unread, shortened + reading.shortened
            _check_read(teacher, part, len(parts[part]), reading.unread)
        teacher.pair.check_rows_inside({"teacher": lambda train=parts["train"]: train.token_ids("teacher")}, console)
        records.append(_record(teacher, parts, unread, shortened, config))
        _warn(teacher, records[-1], console)
    if not teachers:
        return {}
    return {KEY: records, "guided": _guided(teachers, examples["train"], drafts, first_is_paired=first_is_paired)}


def _warn(teacher: FurtherTeacher, record: Mapping[str, Any], console: Console) -> None:
    """Say where this teacher says less than it might."""
    if unread := record["unread"]["train"]:
        console.warn(f"{teacher.name} cannot read {unread:,} training texts: there the others teach alone")
    if shortened := record["shortened"]:
        console.warn(
            f"{teacher.name} reads of {shortened:,} training texts the beginning alone, as its context is too short: behind it the "
            "others teach alone"
        )
    aligned = record.get("alignment", {}).get("positions_aligned", 1.0)
    if aligned < _LOW_COVERAGE:
        console.warn(f"{teacher.name} guides only {100 * aligned:.1f} % of the student's tokens")


def _check_read(teacher: FurtherTeacher, part: str, texts: int, unread: int) -> None:
    """Refuse a teacher that could not teach, or not be measured."""
    if unread < texts:
        return
    raise PreconditionError(
        f"{teacher.name} reads none of the {texts:,} {part} texts: its tokenizer cannot spell them, or its context of "
        f"{teacher.encoders.teacher.limit:,} tokens is too short",
        hint="lower --max-length, name this teacher with --teacher-model, for which texts are cut, or leave it out",
    )


def _builder(
    teacher: FurtherTeacher, student: TextEncoder, config: Parameters
) -> ExampleBuilder | ConversationExampleBuilder:
    same, encoders = teacher.same_tokenizer, teacher.encoders
    own = replace(encoders.student, limit=student.limit)
    if teacher.templates is None:
        return ExampleBuilder(
            own, None if same else encoders.teacher, align=not same, seed=config.seed, around=encoders.teacher
        )
    reader, other = teacher.templates.readers(TextEncoders(own, encoders.teacher))
    return ConversationExampleBuilder(
        reader, None if same else other, align=not same, seed=config.seed, train_on=config.train_on
    )


def _record(
    teacher: FurtherTeacher, parts: Mapping[str, PreparedPart], unread: Mapping[str, int], shortened: int, config: Parameters
) -> dict[str, Any]:  # fmt: skip
    licence = licence_of(teacher.pair.teacher)
    record: dict[str, Any] = {
        "name": teacher.pair.teacher.reference.text,
        "same_tokenizer": teacher.same_tokenizer,
        "teacher_tokens": {part: made.teacher_tokens for part, made in parts.items()},
        "examples": {part: len(made) for part, made in parts.items()},
        "unread": dict(unread),
        "shortened": shortened,
        "licence": (licence.name or licence.identifier) if licence else None,
    }
    if not teacher.same_tokenizer:
        record["alignment"] = parts["train"].alignment(teacher.encoders.student, teacher.encoders.teacher)
    if teacher.templates is not None:
        record["conversations"] = {
            "train_on": config.train_on,
            "one_tokenizer": teacher.one_tokenizer,
            **teacher.templates.record(),
        }
    return record


def _guided(
    teachers: list[FurtherTeacher], examples: PreparedPart, drafts: Path, *, first_is_paired: bool
) -> dict[str, float]:
    paired = [further_rows(drafts, teacher.number, "train") for teacher in teachers if not teacher.same_tokenizer]
    everywhere = len(paired) < len(teachers) or not first_is_paired
    first = [examples.rows] if first_is_paired else []
    return coverage(examples.rows, [*first, *paired], everywhere=everywhere)


def open_further(pair: ModelPair, config: Parameters, run: RunDirectory, console: Console) -> list[FurtherTeacher]:
    """The further teachers that the data of a run were prepared for; [] where there are none.

    Args:
        pair: of the run's student and first teacher.

    Raises:
        PreconditionError: one is not the model that it was then.
    """
    if not has_several_teachers(vars(config)):
        return []
    models = json.loads((run.data / "models.json").read_text(encoding="utf-8"))[KEY]
    stats = json.loads((run.data / "stats.json").read_text(encoding="utf-8"))[KEY]
    found: list[FurtherTeacher] = []
    for number, (model, recorded, told) in enumerate(
        zip(locate_further(config, console), models, stats, strict=True), 2
    ):
        if model.fingerprint() != recorded["fingerprint"]:
            raise PreconditionError(
                f"teacher {number}, {recorded['reference']}, has changed since prepare-data: its files are not the same any more",
                hint=f"prepare the data again: distillkit prepare-data --run {run.path} --force",
            )
        found.append(further_of(pair, model, number, told, config))
    return found


def further_of(
    pair: ModelPair, model: LocatedModel, number: int, told: Mapping[str, Any], config: Parameters
) -> FurtherTeacher:
    """A further teacher as the data were prepared for it.

    Args:
        pair: of the run's student and first teacher.
        told: what data/stats.json has of it.

    Raises:
        PreconditionError: its tokenizer cannot be loaded.
        KeyError: `told` is not of this form.
    """
    conversations = told.get("conversations")
    own = replace(
        pair, teacher=model, missing_rows={}, same_tokenizer=bool(told["same_tokenizer"]), conversations=conversations
    )
    encoders = own.text_encoders(config)
    one = bool(conversations["one_tokenizer"]) if conversations else bool(told["same_tokenizer"])
    return FurtherTeacher(number, own, encoders, own.templates(encoders), one)


def further_rows(data: Path, number: int, part: str) -> StoredRows:
    """The examples of a part as a further teacher reads them."""
    return stored_rows(load_examples(examples_of(data, number, part)))
