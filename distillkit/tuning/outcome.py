"""What a search came to: the table, the winner beside the configuration as given, and what has to be said of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distillkit.settings import declared
from distillkit.settings.strict_yaml import dump_yaml
from distillkit.tuning.halving import Amount, Limits
from distillkit.tuning.journal import Journal, Trial
from distillkit.tuning.search import best_trial
from distillkit.tuning.space import Settings, key_of, spelled, value_words


@dataclass(frozen=True)
class Outcome:
    """The end of a search.

    Attributes:
        given: the searched part of the configuration as the user gave it.
        start: bits per byte before training.
        all_trials: in the order in which they ended.
        ranking: of every configuration its longest trial, the best first.
        best: the first of these; None where every student diverged.
        given_trial, best_there: the longest training that both the given configuration and the best one have had, and what
            came of it; None where there is none.
        limits: of the search.
        counted: trials.
        seconds: that they took.
    """

    given: Settings
    start: float
    all_trials: tuple[Trial, ...]
    ranking: tuple[Trial, ...]
    best: Trial | None
    given_trial: Trial | None
    best_there: Trial | None
    limits: Limits
    counted: int
    seconds: float

    @classmethod
    def of(cls, journal: Journal, given: Settings, start: float, limits: Limits) -> Outcome:
        """What the journal tells."""
        longest: dict[str, Trial] = {}
        for trial in journal.trials:
            key = key_of(trial.settings)
            if key not in longest or trial.amount.passes > longest[key].amount.passes:
                longest[key] = trial
        ranking = sorted(longest.values(), key=_rank)
        best = best_trial(journal)
        if best is not None:
            # Its longest trial may have diverged; it is told by the one that it won with.
            ranking = [best, *(trial for trial in ranking if trial.settings != best.settings)]
        given_trial, best_there = _compared(journal, given, best)
        return cls(
            given,
            start,
            tuple(journal.trials),
            tuple(ranking),
            best,
            given_trial,
            best_there,
            limits,
            journal.counted,
            journal.seconds,
        )

    @property
    def beaten(self) -> bool | None:
        """Whether the configuration as given was beaten; None where it was not tried."""
        if self.best is None or self.given_trial is None:
            return None
        return self.best.settings != self.given

    def sentences(self) -> list[str]:
        """What has to be said, one sentence each."""
        if self.best is None:
            return ["every student got worse than before training: the learning rates are too high for it"]
        best = self.best
        said = [f"best: {spelled(best.settings)}: {best.score:.4f} bits per byte, {self.start:.4f} before training"]
        if self.beaten is None:
            said.append("the configuration as given was not tried in this search")
        elif not self.beaten:
            said.append("the configuration as given was not beaten: it is the best one")
        elif self.given_trial is not None and self.best_there is not None:
            theirs = "diverged" if self.given_trial.diverged else f"came to {self.given_trial.score:.4f}"
            there = f"{_passes(self.given_trial.amount)}, where the best one came to {self.best_there.score:.4f}"
            said.append(f"the configuration as given {theirs} after {there}")
        if best.amount != self.limits.most:
            said.append(
                f"the longest trials read {_passes(best.amount)}, the whole training reads {_passes(self.limits.most)}: more "
                "training often wants a lower learning rate; a larger --minutes goes on from here"
            )
        rates = sorted({trial.settings["learning_rate"] for trial in self.ranking})
        if len(rates) > 1 and best.settings["learning_rate"] in (rates[0], rates[-1]):
            which = "lowest" if best.settings["learning_rate"] == rates[0] else "highest"
            said.append(f"its learning rate is the {which} that was tried: a better one may lie beyond")
        said.append(
            f"a winner's score on the validation part is optimistic, it is the best of {len(self.ranking)}; the test part, "
            "which gives the verdict, was not read"
        )
        return said

    def rows(self) -> list[tuple[Any, ...]]:
        """(rank, value of each searched parameter …, bits per byte, texts read, note) for the table."""
        rows: list[tuple[Any, ...]] = []
        for rank, trial in enumerate(self.ranking, 1):
            note = "as given" if trial.settings == self.given else ""
            score = f"{trial.score:.4f}" if trial.diverged is None else "diverged"
            values = [value_words(value) for value in trial.settings.values()]
            rows.append((rank, *values, score, trial.amount.passes, note))
        return rows

    def record(self) -> dict[str, Any]:
        """The content of result.json."""
        return {
            "searched": list(self.given),
            "start": {"bits_per_byte": self.start},
            "best": _trial_record(self.best),
            "given": {"settings": self.given, "beaten": self.beaten},
            "compared": {"given": _trial_record(self.given_trial), "best": _trial_record(self.best_there)},
            "whole_training": self.best is not None and self.best.amount == self.limits.most,
            "trials": self.counted,
            "seconds": round(self.seconds, 1),
            "table": [_trial_record(trial) for trial in self.ranking],
            "all_trials": [_trial_record(trial) for trial in self.all_trials],
            "columns": ["rank", *(name.replace("_", " ") for name in self.given), "bits per byte", "texts read", ""],
            "rows": [list(row) for row in self.rows()],
            "sentences": self.sentences(),
        }


def best_yaml(settings: Mapping[str, Any]) -> str:
    """The content of best.yaml, for `--config`: the searched parameters, and leave for a value outside its usual range."""
    values = dict(settings)
    if not all(_is_usual(name, value) for name, value in settings.items()):
        values["allow_out_of_range"] = True
    return "# The best settings that distillkit tune has found: distillkit distill --config best.yaml\n" + dump_yaml(
        values
    )


def _is_usual(name: str, value: Any) -> bool:
    low, high = declared.facts(name).low, declared.facts(name).high
    return low is None or high is None or low <= value <= high


def _compared(journal: Journal, given: Settings, best: Trial | None) -> tuple[Trial | None, Trial | None]:
    """The longest trials of the given and of the best configuration that trained equally long."""
    if best is None:
        return None, None
    pairs = [
        (trial, other)
        for trial in journal.trials
        if trial.settings == given and (other := journal.trial(best.settings, trial.amount)) is not None
    ]
    return max(pairs, key=lambda pair: pair[0].amount.passes, default=(None, None))


def _rank(trial: Trial) -> tuple[bool, int, float]:
    return (not math.isfinite(trial.score), -trial.amount.passes, trial.score)


def _trial_record(trial: Trial | None) -> dict[str, Any] | None:
    if trial is None:
        return None
    return {
        "settings": trial.settings,
        "bits_per_byte": trial.score if math.isfinite(trial.score) else None,
        "texts": trial.amount.texts,
        "epochs": trial.amount.epochs,
        "diverged": trial.diverged,
    }


def _passes(amount: Amount) -> str:
    return f"{amount.passes:,} text{'' if amount.passes == 1 else 's'}"
