"""A comparison as `--json` has it, and compare.html and the picture show it: scores, paired differences, settings, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillkit.comparing.chosen_texts import LEVEL, ChosenTexts
from distillkit.comparing.measured import MODELS, Measured
from distillkit.comparing.opened import OpenedRun
from distillkit.evaluation.bits_per_byte import Scores
from distillkit.evaluation.bootstrap import Interval, bootstrap, gap_closed, paired_bootstrap, verdict
from distillkit.evaluation.speed import ModelSize
from distillkit.settings import declared
from distillkit.storage import bytes_below

_VERDICTS = {"improved": "better", "inconclusive": "not shown", "worse": "worse"}


def comparison(runs: Sequence[OpenedRun], texts: ChosenTexts, measured: Measured) -> dict[str, Any]:
    """All that is known of the runs beside one another; every figure is a number that JSON has."""
    first = measured.scores[0]["after"]
    seed = int(runs[0].run.manifest.config.get("seed", 0))
    against = [None, *(_against(measured.scores[0], of, seed) for of in measured.scores[1:])]
    return {
        "level": LEVEL,
        "texts": {
            "how": texts.how,
            "documents": len(first.documents),
            "bytes": int(first.bytes.sum()),
            "of_documents": texts.of,
            "learnt_from": texts.learnt,
            "unread": measured.unread,
        },
        "runs": [
            {
                **_about(run),
                "scored_again": again,
                "scores": {name: _score(of[name], seed) for name in MODELS if name in of},
                **_within(of, seed),
                "against_first": to_first,
                **_size_and_speed(run, sizes),
                **_cost(run),
            }
            for run, of, again, sizes, to_first in zip(
                runs, measured.scores, measured.scored_again, measured.sizes, against, strict=True
            )
        ],
        "settings": differing_settings([run.run.manifest.config for run in runs]),
        "notes": [*_facts_that_differ(runs, measured), *measured.notes],
    }


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Parameter to its value in every run, of those that are not the same in all; where a run lies left out.

    A parameter that the version which made a run did not have has its default.
    """
    left_out = set(declared.location_names())
    found: dict[str, list[Any]] = {}
    for name in declared.fields():
        values = [config.get(name, declared.default(name)) for config in configs]
        if name not in left_out and any(value != values[0] for value in values):
            found[name] = values
    return found


def _about(run: OpenedRun) -> dict[str, Any]:
    manifest = run.run.manifest
    config = manifest.config
    return {
        "name": run.name,
        "run": str(run.run.path),
        "created": manifest.created,
        "distillkit": manifest.distillkit,
        "teacher_model": config.get("teacher_model_path") or config.get("teacher_model"),
        "student_model": config.get("student_model_path") or config.get("student_model"),
        "box_type": config.get("box_type"),
        "verdict": run.validation.get("verdict"),
    }


def _score(scores: Scores, seed: int) -> dict[str, Any]:
    return {"bits_per_byte": scores.bits_per_byte, "ci95": _ends(bootstrap(scores, seed=seed, level=LEVEL))}


def _within(scores: Mapping[str, Scores], seed: int) -> dict[str, Any]:
    """What the run itself came to on these texts."""
    found: dict[str, Any] = {"gain": None, "teacher_gain": None, "gap_closed": None}
    for key, other in (("gain", "before"), ("teacher_gain", "control")):
        if other in scores:
            found[key] = difference(scores[other], scores["after"], seed)
    if "teacher" in scores and "before" in scores:
        found["gap_closed"] = gap_closed(*(scores[name].bits_per_byte for name in ("teacher", "before", "after")))
    return found


def _against(first: Mapping[str, Scores], other: Mapping[str, Scores], seed: int) -> dict[str, Any]:
    """By how much each model is better than that of the first run, on the same documents."""
    return {
        name: difference(first[name], other[name], seed) for name in MODELS if name in first and name in other
    }  # fmt: skip


def difference(before: Scores, after: Scores, seed: int) -> dict[str, Any]:
    """By how much `after` is better, its interval, and "better", "worse" or "not shown"."""
    interval = paired_bootstrap(before, after, seed=seed, level=LEVEL)
    return {"bits_per_byte": interval.estimate, "ci95": _ends(interval), "verdict": _VERDICTS[verdict(interval)]}


def _ends(interval: Interval) -> list[float] | None:
    return None if interval.low is None or interval.high is None else [interval.low, interval.high]


def _size_and_speed(run: OpenedRun, sizes: Mapping[str, ModelSize]) -> dict[str, Any]:
    """As `validate` measured them, else as the weights that were loaded are."""
    after = run.validation.get("after") or {}
    loaded = sizes.get("after")
    return {
        "parameters": after.get("parameters") or (loaded.parameters if loaded else None),
        "size_bytes": after.get("size_bytes") or (loaded.bytes if loaded else None),
        "generated_tokens_per_second": after.get("generated_tokens_per_second"),
        "perplexity": after.get("perplexity"),
        "answers": after.get("answers"),
    }


def _cost(run: OpenedRun) -> dict[str, Any]:
    stages = {
        name: float(record.metrics["seconds"])
        for name, record in run.run.manifest.stages.items()
        if record.metrics.get("seconds") is not None
    }
    trained, teacher = run.metrics.get("train") or {}, run.metrics.get("teacher_pass") or {}
    device = run.run.manifest.device
    return {
        "seconds": stages,
        "total_seconds": sum(stages.values()) if stages else None,
        "train": {name: trained.get(name) for name in ("steps", "tokens", "tokens_per_second", "peak_memory_bytes")},
        "teacher_pass": {name: teacher.get(name) for name in ("tokens", "seconds", "cache_bytes")},
        "disk_bytes": bytes_below(run.run.path),
        "device": {name: device.get(name) for name in ("type", "name", "precision")},
    }


def _facts_that_differ(runs: Sequence[OpenedRun], measured: Measured) -> list[dict[str, str]]:
    """What no setting tells and yet may matter: versions, machines, models and texts that changed under one name."""
    notes: list[dict[str, str]] = []
    first = runs[0]
    for run in runs[1:]:
        theirs, ours = run.run.manifest, first.run.manifest
        if theirs.distillkit != ours.distillkit:
            notes.append({"note": "version", "run": run.name, "theirs": theirs.distillkit, "ours": ours.distillkit})
        for role in ("teacher", "student"):
            mine, other = (one.models.get(role) or {} for one in (ours, theirs))
            if mine.get("reference") == other.get("reference") and mine.get("fingerprint") != other.get("fingerprint"):
                notes.append({"note": f"{role}_changed", "run": run.name})
        for note, key in (("machine", "name"), *([] if any(measured.scored_again) else [("format", "precision")])):
            mine, other = (one.device.get(key) for one in (ours, theirs))
            if mine and other and mine != other:
                notes.append({"note": note, "run": run.name, "theirs": str(other), "ours": str(mine)})
    return notes
