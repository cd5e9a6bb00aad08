"""The runs of a comparison: found, opened, and known to be comparable at all."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.comparing.documents import HeldOutDocument, held_out_documents
from distillkit.errors import PreconditionError, UsageError
from distillkit.reports.run_names import short_names
from distillkit.run.directory import LATEST, RunDirectory, find_run

_HINT = "name two or more: distillkit compare RUN RUN; see: distillkit runs"


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A run whose training is complete.

    Attributes:
        name: what it is called here; no two are called alike.
        documents: of its test part.
        stats: data/stats.json.
        validation, details, metrics: the files of these names; {} where the run has none that holds.
        chat: whether it was trained on conversations.
    """

    run: RunDirectory
    name: str
    documents: list[HeldOutDocument]
    stats: Mapping[str, Any]
    validation: Mapping[str, Any]
    details: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def chat(self) -> bool:
        return bool(self.stats.get("conversations"))

    @property
    def short(self) -> str:
        """For a line of progress."""
        return short_names([self.name], 24)[0]

    def command(self, stage: str, *more: str) -> str:
        """The command that does a stage of it."""
        return " ".join(["distillkit", stage, "--run", shlex.quote(str(self.run.path)), *more])


def open_run(name: str, output_dir: Path) -> RunDirectory:
    """A run by its folder or its name; `latest` is the newest.

    Raises:
        UsageError: there is none.
        PreconditionError: it cannot be read.
    """
    return find_run(None if name == LATEST else name, output_dir, named_by="compare")


def open_runs(named: Sequence[str], output_dir: Path) -> list[OpenedRun]:
    """Open runs that are to be compared, in the order given.

    Raises:
        UsageError: there are fewer than two, one is named twice or is not there, or one is of conversations and another not.
        PreconditionError: a training is not complete, or a file is damaged.
    """
    if len(named) < 2:
        raise UsageError("compare: one run alone cannot be compared", hint=_HINT)
    found = [open_run(name, output_dir) for name in named]
    places = Counter(run.path.resolve() for run in found)
    if twice := [str(place) for place, times in places.items() if times > 1]:
        raise UsageError(f"compare: {twice[0]} is named twice", hint=_HINT)
    opened = [_opened(run, name) for run, name in zip(found, _names(found), strict=True)]
    talking = [one.name for one in opened if one.chat]
    if talking and len(talking) < len(opened):
        other = next(one.name for one in opened if not one.chat)
        raise UsageError(
            f"{talking[0]} was trained on conversations and {other} on texts: one is scored by its answers, the other by "
            "whole texts",
            hint="compare runs of one kind",
        )
    return opened


def _names(runs: Sequence[RunDirectory]) -> list[str]:
    """The names of the folders; where two are called alike, with the folders above them, as many as it takes."""
    parts = [run.path.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("no two runs have the same path")


def _opened(run: RunDirectory, name: str) -> OpenedRun:
    for stage, lacking in (("prepare-data", "its texts are not prepared"), ("distill", "its training is not complete")):
        record = run.record(stage)
        again = f"distillkit distill --run {shlex.quote(str(run.path))}"
        if record is None or record.status != "complete":
            raise _mended_by(again, f"{name}: {lacking}, so there is no student to compare")
        if not run.holds(stage):
            raise _mended_by(f"{again} --force", f"{name}: its student was trained on other texts than the run has now")
    validated = run.holds("validate")
    return OpenedRun(
        run,
        name,
        held_out_documents(run),
        run.read_output("prepare-data", "data/stats.json"),
        run.read_output("validate", "validation.json") if validated else {},
        run.read_output("validate", "validation_details.json") if validated else {},
        run.read_output("distill", "metrics.json") or _figures(run),
    )


def _figures(run: RunDirectory) -> dict[str, Any]:
    """Without save_metrics the manifest alone has the figures of a training."""
    record = run.record("distill")
    return {} if record is None else {key: value for key, value in record.metrics.items() if isinstance(value, dict)}


def _mended_by(command: str, message: str) -> PreconditionError:
    error = PreconditionError(message, hint=f"run: {command}")
    error.next_command = command
    return error
