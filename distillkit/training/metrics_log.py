"""metrics.jsonl: one line per logged step while the training runs, continued after an interruption without doubles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillkit.durability import sync_file
from distillkit.errors import PreconditionError
from distillkit.storage import explained_write_errors, write_bytes
from distillkit.training import checkpoints


class MetricsLog:
    """Appends to metrics.jsonl; with `path` None nothing is written.

    Args:
        resumed_step: lines of later steps are from an attempt that was cut off and are dropped; they come again.
    """

    def __init__(self, path: Path | None, resumed_step: int) -> None:
        self.path = path
        if path is None:
            return
        kept = [line for line in read_metrics(path) if line["step"] <= resumed_step] if resumed_step else []
        write_bytes(path, "".join(_line(line) for line in kept).encode("utf-8"))

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line at once, so that a reader can follow along."""
        if self.path is None:
            return
        text = _line(line)
        with explained_write_errors(self.path, len(text)), self.path.open("a", encoding="utf-8") as stream:
            stream.write(text)

    def sync(self) -> None:
        """Make the lines so far durable; a checkpoint must not outlive them in a power cut."""
        if self.path is not None:
            with explained_write_errors(self.path), self.path.open("rb+") as stream:
                sync_file(stream.fileno(), self.path)


def _line(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a torn last line is left out; [] where there is no file."""
    if not path.is_file():
        return []
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            line = json.loads(text, parse_constant=_refuse) if text else None
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def logged_metrics(path: Path, folder: Path, again: str) -> list[dict[str, Any]]:
    """The lines of a training: those of its metrics.jsonl, else those that its newest committed checkpoint carries, because
    without save_metrics there is no file; [] without either.

    Args:
        path: metrics.jsonl.
        folder: the checkpoints.
        again: the subcommand that trains anew.

    Raises:
        PreconditionError: that checkpoint is damaged.
    """
    lines = read_metrics(path)
    newest = None if lines else checkpoints.newest(folder)
    if newest is None:
        return lines
    problem = checkpoints.problem(newest)
    if problem is not None:
        raise PreconditionError(
            f"the figures are in {newest}, of which {problem}", hint=f"train again: distillkit {again} --force"
        )
    return json.loads((newest / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
