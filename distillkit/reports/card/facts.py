"""What a model card tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CardFacts:
    """What a model card tells.

    Attributes:
        version: of distillkit.
        teacher, student: kind, reference and revision, as `LocatedModel.describe` gives them.
        box_type, alignment: the parameters of these names.
        same_tokenizer: whether teacher and student read the same tokens.
        one_tokenizer: whether they would, if their chat templates did not differ.
        dataset: as the user named it.
        hub_dataset: its id where it lies on the Hub.
        parameters: the numbers of the training, by name.
        alignment_summary: what the code of the alignment says of itself.
        settings: what else differs from the plain method, by a few words each.
        origin_repository: the Hub repository of the model that the student began with, where it came another way and that
            is known.
        licence, licence_name, licence_link: of the model whose weights the student began with, where they are known.
        teacher_licence: the identifier of the teacher's licence, where it is known.
        trust_remote_code: whether a model's own code was allowed to run.
        validation: the content of validation.json, None where the student was not validated.
        cut: the content of data/cut.json, of a student that is cut from its teacher.
        chat: how it reads conversations, None where it was trained on texts.
        adapter_base: of a student that is kept as an adapter, the model that it is for, or its folder in that of the student;
            None for a whole model.
        further_teachers: of several teachers all but the first, as `LocatedModel.describe` gives them, with `licence` and
            `same_tokenizer`.
        weights: of all teachers, the first one first; they add up to 1.
    """

    version: str
    teacher: Mapping[str, Any]
    student: Mapping[str, Any]
    box_type: str
    alignment: str
    same_tokenizer: bool
    dataset: str
    hub_dataset: str | None
    parameters: Mapping[str, Any]
    alignment_summary: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    origin_repository: str | None = None
    licence: str | None = None
    licence_name: str | None = None
    licence_link: str | None = None
    teacher_licence: str | None = None
    trust_remote_code: bool = False
    validation: Mapping[str, Any] | None = None
    cut: Mapping[str, Any] | None = None
    one_tokenizer: bool = False
    chat: ChatFacts | None = None
    adapter_base: str | None = None
    further_teachers: Sequence[Mapping[str, Any]] = ()
    weights: Sequence[float] = (1.0,)


@dataclass(frozen=True)
class ChatFacts:
    """How a student reads conversations.

    Attributes:
        family: of its template, None where that is none of the known ones.
        origin: where the template is from, as `data.chat_template.Origin`.
        end: the token that ends an answer, by its name.
    """

    family: str | None
    origin: str
    end: str
