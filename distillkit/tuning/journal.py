"""The journal of a search: JSON lines of what was decided and of every trial that came to its end.

A line counts once it is whole and on the disk; it carries its own checksum. What was cut off while it was written is
dropped, and the trial that it would have told of is run again. All decisions follow from the journal, so that a search that
goes on after a crash takes the same ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillkit.durability import sync_file
from distillkit.storage import explained_write_errors, make_folder, with_checksum, without_checksum, write_bytes
from distillkit.tuning.halving import Amount
from distillkit.tuning.space import Settings, key_of


@dataclass(frozen=True)
class Trial:
    """A trial that came to its end.

    Attributes:
        settings: what was tried.
        amount: how much it trained.
        score: bits per byte of the validation part; infinity where the student diverged.
        diverged: why, where it did.
        seconds: all that it took.
        training_seconds: of these, its optimizer steps; 0 where a number that is none ended them early.
        once_seconds: of these, what the next one need not do again (compiling).
    """

    settings: Settings
    amount: Amount
    score: float
    diverged: str | None = None
    seconds: float = 0.0
    training_seconds: float = 0.0
    once_seconds: float = 0.0

    @property
    def trained_to_its_end(self) -> bool:
        """Whether its times tell what others will take."""
        return self.training_seconds > 0

    @property
    def fixed_seconds(self) -> float:
        """What every trial takes besides its steps: loading, scoring."""
        return max(0.0, self.seconds - self.training_seconds - self.once_seconds)


@dataclass(frozen=True)
class Rung:
    """A rung that was begun.

    Attributes:
        bracket, number: counted from 0.
        amount: how much each of its trials trains.
        candidates: the settings, in the order in which they are tried.
        following: how many configurations were planned for the rungs after it.
    """

    bracket: int
    number: int
    amount: Amount
    candidates: tuple[Settings, ...]
    following: tuple[int, ...] = ()


@dataclass
class Journal:
    """What is known of a search.

    Attributes:
        path: journal.jsonl.
        fingerprint: what the trials depend on besides their settings.
        facts: decided or measured once, by name (`start`: the score before training; `minutes`, `trials`: the budget).
        rungs: in the order in which they were begun.
        trials: in the order in which they ended.
        dropped: lines that were damaged.
    """

    path: Path
    fingerprint: str
    facts: dict[str, Any] = field(default_factory=dict)
    rungs: list[Rung] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    dropped: int = 0
    _found: dict[tuple[str, int, int], Trial] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, fingerprint: str) -> Journal:
        """The journal at `path`, a new one where there is none. One that belongs to another fingerprint is not continued:
        `belongs` asks for that first.

        Raises:
            DistillkitError: it cannot be written.
        """
        journal = cls(path, fingerprint)
        make_folder(path.parent)
        text = path.read_bytes() if path.is_file() else b""
        lines, journal.dropped = _read(text)
        if not lines or lines[0] != {"kind": "search", "fingerprint": fingerprint}:
            lines, journal.dropped = [{"kind": "search", "fingerprint": fingerprint}], 0
        for line in lines[1:]:
            journal._take(line)
        content = b"".join(map(_bytes, lines))
        if content != text:
            write_bytes(path, content)
        return journal

    @staticmethod
    def belongs(path: Path, fingerprint: str) -> bool:
        """Whether the journal at `path` can be continued; True where there is none."""
        lines = _read(path.read_bytes())[0] if path.is_file() else []
        return not lines or lines[0] == {"kind": "search", "fingerprint": fingerprint}

    def trial(self, settings: Mapping[str, Any], amount: Amount) -> Trial | None:
        """The trial of these settings and this amount, if it came to its end."""
        return self._found.get((key_of(settings), amount.texts, amount.epochs))

    def score(self, settings: Mapping[str, Any], amount: Amount) -> float:
        """Its score; infinity where there is none."""
        trial = self.trial(settings, amount)
        return math.inf if trial is None else trial.score

    @property
    def seconds(self) -> float:
        """That all trials took."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def counted(self) -> int:
        """Trials that belong to a rung; the one that only measured the time does not."""
        members = {
            (key_of(settings), rung.amount.texts, rung.amount.epochs)
            for rung in self.rungs
            for settings in rung.candidates
        }
        return len(members & self._found.keys())

    def add_trial(self, trial: Trial) -> None:
        """Write down a trial.

        Raises:
            DistillkitError: it cannot be written.
        """
        line = {
            "kind": "trial", "settings": trial.settings, "texts": trial.amount.texts, "epochs": trial.amount.epochs,
            "bits_per_byte": trial.score if math.isfinite(trial.score) else None, "diverged": trial.diverged,
            "seconds": round(trial.seconds, 3), "training_seconds": round(trial.training_seconds, 3),
            "once_seconds": round(trial.once_seconds, 3),
        }  # fmt: skip
        self._append(line)

    def begin_rung(self, rung: Rung) -> None:
        """Write down what a rung consists of, before its first trial.

        Raises:
            DistillkitError: it cannot be written.
        """
        line = {
            "kind": "rung", "bracket": rung.bracket, "number": rung.number, "texts": rung.amount.texts,
            "epochs": rung.amount.epochs, "candidates": list(rung.candidates), "following": list(rung.following),
        }  # fmt: skip
        self._append(line)

    def note(self, **facts: Any) -> None:
        """Write down facts, where they are new.

        Raises:
            DistillkitError: it cannot be written.
        """
        new = {name: value for name, value in facts.items() if name not in self.facts or self.facts[name] != value}
        if new:
            self._append({"kind": "facts", "facts": new})

    def _append(self, line: dict[str, Any]) -> None:
        content = _bytes(line)
        with explained_write_errors(self.path, len(content)), self.path.open("ab") as stream:
            stream.write(content)
            stream.flush()
            sync_file(stream.fileno(), self.path)
        self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        if line["kind"] == "facts":
            self.facts.update(line["facts"])
            return
        amount = Amount(line["texts"], line["epochs"])
        if line["kind"] == "rung":
            candidates, following = tuple(line["candidates"]), tuple(line["following"])
            self.rungs.append(Rung(line["bracket"], line["number"], amount, candidates, following))
            return
        score = math.inf if line["bits_per_byte"] is None else line["bits_per_byte"]
        timings = (line["seconds"], line["training_seconds"], line["once_seconds"])
        trial = Trial(line["settings"], amount, score, line["diverged"], *timings)
        self.trials.append(trial)
        self._found[key_of(trial.settings), amount.texts, amount.epochs] = trial


def _bytes(line: dict[str, Any]) -> bytes:
    return (json.dumps(with_checksum(line), ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def _read(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """The whole lines, and how many are damaged; a last line that was cut off is not counted."""
    lines: list[dict[str, Any]] = []
    damaged = 0
    *whole, _ = content.split(b"\n")
    for text in whole:
        try:
            lines.append(without_checksum(json.loads(text.decode("utf-8"))))
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged += 1
    return lines, damaged
