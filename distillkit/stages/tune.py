"""tune: which learning rate, temperature, alpha and divergence this student needs, found on the validation part.

Writes tune/journal.jsonl, tune/best.yaml, tune/result.json and plots/tune.png, .svg. The test part is not read.
"""

from __future__ import annotations

import json
import shlex

from distillkit.console import Console, format_duration
from distillkit.device.memory import explained_memory_errors
from distillkit.errors import DistillkitError, UsageError
from distillkit.reports.tune_plot import draw_tune_plot
from distillkit.run.context import TrainingContext
from distillkit.run.directory import RunDirectory
from distillkit.settings import declared
from distillkit.settings.parameters import Parameters
from distillkit.stages import StageResult
from distillkit.storage import (
    explained_write_errors,
    fingerprint_of,
    make_folder,
    remove_tree,
    write_bytes,
    write_json,
)
from distillkit.tuning.journal import Journal
from distillkit.tuning.outcome import Outcome, best_yaml
from distillkit.tuning.search import Budget, Search, limits_of
from distillkit.tuning.space import Space, searched_names, spelled
from distillkit.tuning.texts import open_trials
from distillkit.tuning.trial import Trials

DEFAULT_MINUTES = 20.0
# They change neither the student nor what a trial takes of it.
_IRRELEVANT = ("checkpoint_interval", "save_best_model", "teacher_cache", "epochs")


def extra_inputs(config: Parameters, run: RunDirectory) -> dict[str, str]:
    """The settings of the training, searched or not."""
    values = vars(config)
    return {name: json.dumps(values[name]) for name in declared.fields() if declared.facts(name).affects == "distill"}


def run(
    config: Parameters,
    run: RunDirectory,
    console: Console,
    *,
    from_scratch: bool = False,
    minutes: float | None = None,
    trials: int | None = None,
) -> StageResult:
    """Search, or go on searching, until the budget ends.

    Args:
        minutes, trials: the budget of the whole search, earlier attempts counted; None for both: as it was given last, at
            first `DEFAULT_MINUTES`.

    Raises:
        UsageError: a budget is no positive number.
        DistillkitError: every student diverged, or something cannot be written.
        Interrupted: a signal arrived; finished trials are kept.
    """
    check_budget(minutes, trials)
    if from_scratch:
        with explained_write_errors(run.tuning):
            remove_tree(run.tuning)
    context = TrainingContext.open(config, run, console)
    journal = _open_journal(config, run, console)
    budget = _budget(journal, minutes, trials)
    space = Space.of(config)
    with explained_memory_errors():
        tried = open_trials(context, run.tuning)
        limits = limits_of(tried.texts, config.epochs, config.batch_size * config.gradient_accumulation)
        start = _start_score(tried, journal)
        console.info(
            f"searching {', '.join(name.replace('_', ' ') for name in space.given)}; {_budget_words(budget, journal)}; "
            f"before training the student has {start:.4f} bits per byte"
        )
        Search(
            space, limits, budget, journal,
            lambda settings, amount, label: tried.run(settings, amount, label, start), console.info,
        ).run()  # fmt: skip
    outcome = Outcome.of(journal, space.given, start, limits)
    if outcome.best is None:
        raise DistillkitError(
            f"no trial of {len(outcome.ranking)} made the student better than before training",
            hint="give more --minutes or --trials, or a lower --learning-rate to begin with",
        )
    write_bytes(run.tuning / "best.yaml", best_yaml(outcome.best.settings).encode("utf-8"))
    record = outcome.record()
    write_json(run.tuning / "result.json", record)
    make_folder(run.plots)
    drawn = draw_tune_plot(record, run.plots, title=run.path.name)
    summary = (
        f"{outcome.counted} trials in {format_duration(outcome.seconds)}; best: {spelled(outcome.best.settings)}, "
        f"{outcome.best.score:.4f} bits per byte"
    )
    metrics = {name: record[name] for name in ("best", "given", "compared", "whole_training", "trials")}
    outputs = [run.tuning / name for name in ("journal.jsonl", "best.yaml", "result.json")]
    return StageResult([*outputs, *drawn], metrics, summary)


def use_command(run: RunDirectory) -> str:
    """The shell command that trains with what was found; a training that there is already is replaced."""
    words = ["distillkit", "distill", "--run", str(run.path), "--config", str(run.tuning / "best.yaml")]
    return shlex.join([*words, *(["--force"] if run.record("distill") is not None else [])])


def plan_words(config: Parameters, minutes: float | None = None, trials: int | None = None) -> str:
    """What a search would do, for --dry-run."""
    names = ", ".join(name.replace("_", " ") for name in searched_names(config))
    limits = [] if trials is None else [f"at most {trials} trials"]
    if minutes is not None or trials is None:
        limits.append(f"{DEFAULT_MINUTES if minutes is None else minutes:g} minutes of trials")
    teacher = ", after one pass of the teacher over the training texts" if config.alpha > 0 else ""
    return f"tune searches {names}: {' and '.join(limits)}{teacher}"


# --- the budget ------------------------------------------------------------------------------------------------------


def check_budget(minutes: float | None = None, trials: int | None = None) -> None:
    """Refuse a budget that is none.

    Raises:
        UsageError: it is no positive number.
    """
    for flag, value in (("--minutes", minutes), ("--trials", trials)):
        if value is not None and not 0 < value < 1e9:
            raise UsageError(f"{flag}: {value:g} is impossible, it must be greater than 0", hint=f"use {flag} 20")


def _budget(journal: Journal, minutes: float | None, trials: int | None) -> Budget:
    if minutes is None and trials is None:
        minutes, trials = journal.facts.get("minutes"), journal.facts.get("trials")
    if minutes is None and trials is None:
        minutes = DEFAULT_MINUTES
    journal.note(minutes=minutes, trials=trials)
    return Budget(None if minutes is None else 60 * minutes, trials)


def _budget_words(budget: Budget, journal: Journal) -> str:
    words = []
    if budget.seconds is not None:
        words.append(f"{format_duration(max(0.0, budget.seconds - journal.seconds))} are left for trials")
    if budget.trials is not None:
        words.append(f"{journal.counted} of at most {budget.trials} trials are done")
    return ", ".join(words)


# --- what is known already ---------------------------------------------------------------------------------------------


def _open_journal(config: Parameters, run: RunDirectory, console: Console) -> Journal:
    """The journal of the search so far; another one where texts or other settings are not what they were."""
    names = searched_names(config)
    own = {*names, *(["beta"] if "alpha" in names else []), *_IRRELEVANT}
    settings = {name: value for name, value in extra_inputs(config, run).items() if name not in own}
    prepared = run.record("prepare-data")
    fingerprint = fingerprint_of([names, settings, prepared.fingerprint() if prepared else None])
    path = run.tuning / "journal.jsonl"
    if not Journal.belongs(path, fingerprint):
        console.warn(f"{path} is of other texts or other settings: the search begins anew")
    journal = Journal.open(path, fingerprint)
    if journal.dropped:
        console.warn(f"{path}: {journal.dropped} damaged lines are ignored; what they told is found out again")
    return journal


def _start_score(tried: Trials, journal: Journal) -> float:
    if "start" not in journal.facts:
        journal.note(start=tried.start_score())
    return journal.facts["start"]
