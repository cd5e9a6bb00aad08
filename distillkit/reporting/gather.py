"""Reads the files of a run for its report. What is not there is empty; what is damaged is named, and the rest is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from distillkit.data.conversation import Conversation
from distillkit.data.examples import load_examples
from distillkit.errors import DistillkitError
from distillkit.reports.html.facts import HeldOutText, ReportFacts, StageFacts
from distillkit.reports.html.sections.documents import document_gains, extremes
from distillkit.run.directory import CONFIG_FILE, RunDirectory
from distillkit.run.manifest import StageRecord
from distillkit.settings.as_flags import as_flags
from distillkit.training.metrics_log import logged_metrics

Read = TypeVar("Read")

# Letters of a held-out text that are shown.
_MOST_LETTERS = 1200


def gather(run: RunDirectory) -> ReportFacts:
    """What the report of a run tells."""
    problems: list[str] = []

    def read(load: Callable[[], Read], instead: Read) -> Read:
        try:
            return load()
        except DistillkitError as error:
            problems.append(error.message.replace(f"{run.path}/", ""))
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{type(error).__name__}: {error}".replace(f"{run.path}/", ""))
        return instead

    def output(stage: str, name: str) -> dict[str, Any]:
        # What a stage has left unfinished, or what it made of something else than is there now, is no result.
        return read(lambda: run.read_output(stage, name), {}) if run.holds(stage) else {}

    manifest = run.manifest
    control = run.best_control is not None
    details = output("validate", "validation_details.json")
    return ReportFacts(
        name=run.path.name,
        version=manifest.distillkit,
        created=manifest.created,
        config=manifest.config,
        sources=manifest.sources,
        command=_command(manifest.config),
        config_yaml=read(lambda: _without_comment(run.path / CONFIG_FILE), ""),
        versions=manifest.versions,
        device=manifest.device,
        stages={name: _stage(record) for name, record in manifest.stages.items()},
        stats=output("prepare-data", "data/stats.json"),
        cut=output("prepare-data", "data/cut.json"),
        lines=read(lambda: logged_metrics(run.path / "metrics.jsonl", run.checkpoints, "distill"), []),
        control_lines=read(
            lambda: (
                logged_metrics(run.control / "metrics.jsonl", run.control / "checkpoints", "control") if control else []
            ),
            [],
        ),
        metrics=output("distill", "metrics.json") or _figures(run.record("distill")),
        control_metrics=output("control", "control/metrics.json") or _figures(run.record("control")),
        validation=output("validate", "validation.json"),
        details=details,
        texts=read(lambda: _texts(run, details), {}),
        demo=output("demo", "demo.json"),
        students=_students(run),
        ggufs={path.name: path.stat().st_size for path in sorted(run.exports.glob("*.gguf"))},
        problems=problems,
    )


def _command(config: Mapping[str, Any]) -> list[str]:
    flags = as_flags(config)
    return [] if flags is None else ["distillkit", "distill", *flags]


def _without_comment(path: Path) -> str:
    if not path.is_file():
        return ""
    return "".join(
        line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if not line.startswith("#")
    )


def _stage(record: StageRecord) -> StageFacts:
    made = record.metrics.get("made", True)
    return StageFacts(
        record.status, record.metrics.get("seconds"), record.error, None if made else str(record.metrics.get("why"))
    )


def _figures(record: StageRecord | None) -> dict[str, Any]:
    """Without save_metrics the manifest alone has the figures of a training."""
    if record is None or record.status != "complete":
        return {}
    return {name: value for name, value in record.metrics.items() if isinstance(value, dict)}


def _students(run: RunDirectory) -> list[str]:
    record = run.record("distill")
    if record is None or record.status != "complete":
        return []
    return [run.best_student.relative_to(run.path).as_posix()]


def _texts(run: RunDirectory, details: Mapping[str, Any]) -> dict[int, HeldOutText]:
    """The held-out documents that gained most and least."""
    best, worst = extremes(document_gains(details))
    wanted = {one.document for one in (*best, *worst)}
    if not wanted:
        return {}
    found: dict[int, HeldOutText] = {}
    stored = load_examples(run.data / "test").select_columns(["document", "text"])
    for example in stored:
        document = int(example["document"])
        if document in wanted and document not in found:
            found[document] = _beginning(_readable(example["text"]))
    return found


def _readable(text: str) -> str:
    """A conversation as people read it; any other text as it is."""
    try:
        turns = Conversation.from_canonical(text).turns
    except (ValueError, TypeError):
        return text
    return "\n".join(f"{turn.role}: {turn.text}" for turn in turns)


def _beginning(text: str) -> HeldOutText:
    return HeldOutText(text[:_MOST_LETTERS], len(text) <= _MOST_LETTERS)
