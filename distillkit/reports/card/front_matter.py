"""The front matter of a model card: what the Hub shows beside the text and searches in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from distillkit.reports.adapter_card import relation_to_base
from distillkit.reports.card import markdown
from distillkit.reports.card.facts import CardFacts
from distillkit.reports.card.names import data_set, hub_repository, last_part

_METRICS = (("bits_per_byte", "Bits per byte"), ("perplexity", "Perplexity per token"))


def front_matter(facts: CardFacts) -> ModelCardData:
    """The front matter: what the Hub shows beside the text and searches in."""
    pruned = facts.student["kind"] == "pruned-teacher"
    # A student made of its teacher's layers comes from where the teacher comes from.
    origin = facts.teacher if pruned else facts.student
    base_model = hub_repository(origin["reference"] if origin["kind"] == "hub" else facts.origin_repository)
    dataset = hub_repository(facts.hub_dataset)
    results = _eval_results(facts)
    return ModelCardData(
        library_name="transformers" if facts.adapter_base is None else "peft",
        pipeline_tag="text-generation",
        license=markdown.plain(facts.licence) if facts.licence else None,
        license_name=markdown.plain(facts.licence_name) if facts.licence_name else None,
        license_link=markdown.line(facts.licence_link) if facts.licence_link else None,
        base_model=base_model,
        # With layers left out it is more than a fine-tuned model, and the Hub has no word for it.
        base_model_relation=relation_to_base(facts.adapter_base) if base_model is not None and not pruned else None,
        datasets=[dataset] if dataset is not None else None,
        tags=["distillkit", "knowledge-distillation"],
        model_name=_model_name(origin) if results else None,
        eval_results=results or None,
    )


def _model_name(origin: Mapping[str, Any]) -> str:
    """A name for the results: the model that the student began with, and what became of it."""
    name = last_part(str(origin["reference"]).partition("@")[0]).removesuffix(".gguf")
    return f"{markdown.plain(name) or 'unnamed'}-distilled"


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
                        dataset_type=hub_repository(facts.hub_dataset) or "text",
                        dataset_name=f"{markdown.plain(data_set(facts.dataset)) or 'unnamed'}, held-out part",
                        dataset_split="test",
                        metric_type=metric,
                        metric_name=f"{name}, {moment}",
                        metric_value=value,
                    )
                )
    return results
