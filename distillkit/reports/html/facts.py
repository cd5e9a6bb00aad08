"""What a report is made from: the content of the run's files, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StageFacts:
    """What the manifest says of a stage.

    Attributes:
        status: "running" (it was cut off), "complete", "failed".
        seconds: it took; None where that is not known.
        error: why it failed.
        why: why it made nothing, though complete.
    """

    status: str
    seconds: float | None = None
    error: str | None = None
    why: str | None = None


@dataclass(frozen=True)
class HeldOutText:
    """The beginning of a held-out document, as a person reads it; `whole` is False where there is more of it."""

    text: str
    whole: bool


@dataclass(frozen=True)
class ReportFacts:
    """The content of the files of a run; what is not there is empty.

    Attributes:
        name: of the run.
        version: of distillkit.
        created: ISO 8601.
        config, sources: parameter to value, and to where it came from.
        command: words of the command that does the same again; () where a parameter has no flag, and only config.yaml can.
        config_yaml: the content of config.yaml.
        versions, device: as in the manifest.
        stages: those that have begun.
        stats: data/stats.json.
        cut: data/cut.json.
        lines, control_lines: of metrics.jsonl, and of that of the control.
        metrics, control_metrics: metrics.json, and that of the control.
        validation, details: validation.json, validation_details.json.
        texts: document to text, of held-out documents.
        demo: demo.json.
        students: the exported students, relative to the run: student/best …
        ggufs: name to bytes, of the files in export/.
        problems: files that cannot be read, as clauses.
    """

    name: str
    version: str
    created: str
    config: Mapping[str, Any]
    sources: Mapping[str, str]
    command: Sequence[str] = ()
    config_yaml: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    device: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, StageFacts] = field(default_factory=dict)
    stats: Mapping[str, Any] = field(default_factory=dict)
    cut: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[Mapping[str, Any]] = ()
    control_lines: Sequence[Mapping[str, Any]] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    control_metrics: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[int, HeldOutText] = field(default_factory=dict)
    demo: Mapping[str, Any] = field(default_factory=dict)
    students: Sequence[str] = ()
    ggufs: Mapping[str, int] = field(default_factory=dict)
    problems: Sequence[str] = ()

    def complete(self, stage: str) -> bool:
        """Whether a stage has got to its end."""
        found = self.stages.get(stage)
        return found is not None and found.status == "complete"

    @property
    def measured(self) -> list[str]:
        """The models that validation.json has figures of, in the order in which they are shown."""
        return [
            name for name in ("before", "control", "after", "teacher", "tuned_teacher") if self.validation.get(name)
        ]

    def content(self, file: str) -> Mapping[str, Any]:
        """The content of a JSON file, by the name that `data-of` gives it."""
        return {
            "validation": self.validation, "details": self.details, "metrics": self.metrics,
            "control": self.control_metrics, "stats": self.stats, "cut": self.cut, "device": self.device,
        }[file]  # fmt: skip
