"""Which chat template each model of a pair reads conversations in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distillkit.alignment.token_bytes import same_vocabulary
from distillkit.data.chat_template import PLAIN, ChatTemplate, Origin, added_names, own_template
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.special_tokens import same_names
from distillkit.data.text_encoder import TextEncoder, TextEncoders
from distillkit.errors import UsageError

_WORDS: Mapping[Origin, str] = {
    "model": "its own",
    "file": "--chat-template",
    "teacher": "the teacher's, whose tokenizer it has",
    "plain": "none of its own: the plain one (### User: …)",
}


@dataclass(frozen=True)
class TemplatePair:
    """The chat templates of a run."""

    student: ChatTemplate
    teacher: ChatTemplate

    def same(self, encoders: TextEncoders) -> bool:
        """Whether both models read every conversation as the same tokens, and these mean the same to both."""
        return self.student.same_as(self.teacher) and _reads_alike(encoders, self.student.source)

    def readers(self, encoders: TextEncoders) -> tuple[ConversationReader, ConversationReader]:
        """How student and teacher read conversations."""
        return ConversationReader(encoders.student, self.student), ConversationReader(encoders.teacher, self.teacher)

    def marked(self, encoders: TextEncoders) -> TextEncoders:
        """The encoders, which know the tokens that end an answer."""
        return TextEncoders(
            replace(encoders.student, end_of_turn=self.student.end_id),
            replace(encoders.teacher, end_of_turn=self.teacher.end_id),
        )

    def lines(self) -> list[str]:
        """For people: whose template is used, and what follows from it."""
        sides = (("student", self.student), ("teacher", self.teacher))
        found = [
            f"the {role}'s chat template: {_WORDS[side.origin]}; {side.end_name} ends an answer" for role, side in sides
        ]
        return found + [
            f"the {role}'s chat template has no turns of the system: their text goes in front of the user's first"
            for role, side in sides
            if side.joins_system
        ]

    def record(self) -> dict[str, Any]:
        """`conversations` of data/stats.json, the templates."""
        return {"student": self.student.record(), "teacher": self.teacher.record()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], encoders: TextEncoders) -> TemplatePair:
        """What `record` gave.

        Raises:
            KeyError: it is not of this form.
        """
        sides = (("student", encoders.student), ("teacher", encoders.teacher))
        return cls(*(ChatTemplate.from_record(record[role], encoder.tokenizer) for role, encoder in sides))


def choose_templates(encoders: TextEncoders, given: str | None) -> TemplatePair:
    """Each model's own template; where it has none, the given one; else for a student the teacher's, where both have one
    tokenizer and the same special tokens; else the plain one.

    Args:
        given: the content of --chat-template.

    Raises:
        PreconditionError: a template cannot be used with its model's tokenizer.
        UsageError: one is given, and both models have their own.
    """
    own = {"student": own_template(encoders.student.tokenizer), "teacher": own_template(encoders.teacher.tokenizer)}
    if given is not None and None not in own.values():
        raise UsageError(
            "--chat-template is for models without a chat template, and both have one", hint="leave --chat-template out"
        )

    def template(role: str, encoder: TextEncoder) -> ChatTemplate:
        choices: list[tuple[str | None, Origin]] = [(own[role], "model"), (given, "file")]
        theirs = own["teacher"]
        if role == "student" and theirs is not None and _reads_alike(encoders, theirs):
            choices.append((theirs, "teacher"))
        for source, origin in choices:
            if source:
                return ChatTemplate.of(encoder, source, origin, f"the {role}")
        return ChatTemplate.of(encoder, PLAIN, "plain", f"the {role}")

    return TemplatePair(template("student", encoders.student), template("teacher", encoders.teacher))


def further_template(encoder: TextEncoder, given: str | None, whose: str) -> ChatTemplate:
    """That of a further teacher: its own, else the given one, else the plain one.

    Args:
        given: the content of --chat-template.
        whose: "teacher 2", for messages.

    Raises:
        PreconditionError: it cannot be used with this tokenizer.
    """
    own = own_template(encoder.tokenizer)
    if own is not None:
        return ChatTemplate.of(encoder, own, "model", whose)
    if given:
        return ChatTemplate.of(encoder, given, "file", whose)
    return ChatTemplate.of(encoder, PLAIN, "plain", whose)


def read_template(path: str) -> str:
    """The content of --chat-template.

    Raises:
        UsageError: it cannot be read, or is empty.
    """
    try:
        source = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--chat-template {path}: {getattr(error, 'strerror', None) or 'no text in UTF-8'}",
            hint="give a file with a Jinja template, such as a model's chat_template.jinja",
        ) from error
    if not source.strip():
        raise UsageError(f"--chat-template {path}: it is empty", hint="give a file with a Jinja template")
    return source


def _reads_alike(encoders: TextEncoders, source: str) -> bool:
    """Whether both have one vocabulary, and the special tokens that a template writes are the same to both."""
    student, teacher = encoders.student, encoders.teacher
    if student.table is None or teacher.table is None or not same_vocabulary(student.table, teacher.table):
        return False
    ends = {
        token for encoder in (student, teacher) for token in (encoder.tokenizer.bos_token, encoder.tokenizer.eos_token)
    }
    names = {name for encoder in (student, teacher) for name in added_names(encoder) if name in source}
    return same_names(student, teacher, names | {name for name in ends if name})
