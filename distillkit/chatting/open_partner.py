"""Which model of a run talks, and by which template."""

from __future__ import annotations

from pathlib import Path

from distillkit.chatting.partner import ChatPartner
from distillkit.console import Console
from distillkit.data.chat_template import ChatTemplate
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.template_choice import choose_templates
from distillkit.data.text_encoder import TextEncoders
from distillkit.device.memory import explained_memory_errors
from distillkit.device.precision import choose_compute
from distillkit.errors import PreconditionError, UsageError
from distillkit.models.answering import AnswerSettings
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import ModelPair, open_pair
from distillkit.settings.parameters import Parameters

NAMES = {"teacher": "the teacher", "before": "the student before training", "after": "the student after training"}


def open_partner(
    who: str,
    config: Parameters,
    run: RunDirectory,
    console: Console,
    *,
    settings: AnswerSettings,
    seed: int,
    system: str | None = None,
) -> ChatPartner:
    """Load one model of a run.

    Args:
        who: a key of `NAMES`.
        system: what the system's turn of every conversation says, None for none.

    Raises:
        UsageError: there is no such model.
        PreconditionError: the run has not come so far, or the model has changed or is damaged.
    """
    if who not in NAMES:
        raise UsageError(f"--with {who!r} is nobody to talk with", hint=f"use one of: {', '.join(NAMES)}")
    needed = "distill" if who == "after" else "prepare-data"
    record = run.record(needed)
    if record is None or record.status != "complete":
        raise PreconditionError(
            f"{NAMES[who]} is not there: {needed} of {run.path} is not complete",
            hint=f"distillkit {needed} --run {run.path}",
        )
    compute = choose_compute(config)
    pair = open_pair(config, run, console)
    encoders = pair.text_encoders(config)
    encoder = encoders.teacher if who == "teacher" else encoders.student
    template = _template(who, pair, encoders, console)
    with explained_memory_errors():
        if who == "teacher":
            model = pair.load_teacher(compute.generation, console)
        elif who == "before":
            model = pair.load_student(console)
        else:
            model = pair.load_trained_student(Path(run.best_student), console)
        model = model.to(compute.device).eval()
    return ChatPartner(NAMES[who], model, ConversationReader(encoder, template), compute, settings, seed, system)


def _template(who: str, pair: ModelPair, encoders: TextEncoders, console: Console) -> ChatTemplate:
    """The template that the model reads by in this run; of a run on texts its own, else the plain one."""
    templates = pair.templates(encoders)
    if templates is None:
        templates = choose_templates(encoders, None)
        console.info("this run was trained on texts: its student may not have learnt to answer, nor to stop")
    template = templates.teacher if who == "teacher" else templates.student
    if template.origin == "plain":
        console.warn(f"{NAMES[who]} has no chat template: a plain one is used")
    return template
