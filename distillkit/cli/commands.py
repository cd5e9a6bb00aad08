"""The subcommands that run stages: each from what was given, through the pipeline, to what is shown at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit.cli.request import Request, check_surroundings, continuing, execute
from distillkit.console import Console
from distillkit.durability import weaknesses_reported
from distillkit.errors import QualityGateError, UsageError
from distillkit.interrupts import check_interrupted, graceful_signals
from distillkit.pipeline.opening import continue_command, open_run
from distillkit.pipeline.running import Outcome, run_pipeline, show_stage
from distillkit.run.directory import RunDirectory, list_runs
from distillkit.run.results import harness_table, next_steps_of, read_result, result_table
from distillkit.run.source_paths import explaining_moved_sources
from distillkit.settings import declared
from distillkit.settings.paths import user_path
from distillkit.stages import STAGES, stage_parameters


class GateReportedError(QualityGateError):
    """The quality gate failed, and the JSON object has been printed already."""

    reported = True


def run_distill(request: Request, console: Console, *, only: bool) -> None:
    """`distillkit distill`."""
    if only and request.run is None and request.value("folder_name") is None:
        request = request.on_newest_run()
    outcome = execute(request, console, ["distill"] if only else None, whole=not only)
    if outcome is not None:
        show_result(outcome.run, console)
        _report("distill", outcome, console)


def run_prepare_data(request: Request, console: Console) -> None:
    """`distillkit prepare-data`: on --run, on a new run where settings are given, else on the newest one."""
    if request.run is None and request.empty and list_runs(user_path(request.output_dir, "--output-dir")):
        request = request.on_newest_run()
    outcome = execute(request, console, ["prepare-data"])
    if outcome is not None:
        kept = [declared.flag(name) for name in request.given if name not in stage_parameters("prepare-data")]
        if kept:
            console.info(f"kept for the later stages of the run: {', '.join(kept)}")
        console.info(f"next: {continue_command(outcome.run)}")
        _report("prepare-data", outcome, console)


def run_tune(request: Request, console: Console, options: Mapping[str, Any]) -> None:
    """`distillkit tune`: on --run, on a new run where settings are given, else on the newest one.

    Args:
        options: `minutes`, `trials`.
    """
    from distillkit.stages.tune import check_budget, plan_words, use_command

    check_budget(**options)
    if request.run is None and request.empty and list_runs(user_path(request.output_dir, "--output-dir")):
        request = request.on_newest_run()
    stages = ["prepare-data", "tune"]
    if request.run is None:
        resolved = request.resolve()
    else:
        existing, resolved = open_run(request.resolve, request.run, request.output_dir)
        record = existing.record("prepare-data")
        # --force begins the search anew, and leaves the data that it searches on alone.
        stages = ["tune"] if record is not None and record.status == "complete" else stages
    if request.dry_run:
        console.info(plan_words(resolved.parameters, **options))
    outcome = execute(request, console, stages, options={"tune": options})
    if outcome is None:
        return
    found = outcome.run.read_output("tune", "tune/result.json")
    command = use_command(outcome.run)
    numeric = (0, *range(len(found["columns"]) - 3, len(found["columns"]) - 1))
    console.table("Search", found["columns"], found["rows"], numeric=numeric, to_stdout=True)
    for sentence in found["sentences"]:
        console.prose(sentence)
    console.data(f"train with it: {command}")
    _report("tune", outcome, console, tune=found, next=command)


def run_check_env(request: Request, console: Console) -> None:
    """`distillkit check-env`: recorded in a run where one is named, else only shown."""
    if request.run is not None:
        outcome = execute(request, console, ["check-env"])
        if outcome is not None:
            _report("check-env", outcome, console)
        return
    from distillkit.stages import check_env

    check_surroundings(console)
    resolved = request.resolve()
    for note in resolved.notes:
        console.warn(note)
    with graceful_signals():
        findings = check_env.check(resolved.parameters, console)
        check_interrupted()
    console.json({"command": "check-env", "status": "complete", **findings})


def run_later_stage(
    stage: str,
    console: Console,
    *,
    run: str | None,
    output_dir: str,
    force: bool,
    options: Mapping[str, Any],
    given: Mapping[str, Any] | None = None,
) -> None:
    """The subcommand of a stage that works on a run whose training is complete: `control`, `validate`, `demo`, `plot`.

    Args:
        options: keyword options of that stage.
        given: parameters that were given.
    """
    check_surroundings(console)
    request = Request({**STAGES[stage].sets, **(given or {})}, environment={})
    directory, resolved = open_run(request.resolve, run, output_dir)
    console.info(console.say("start.run", path=directory.path))
    stages = [stage, *(later for later in STAGES[stage].then if directory.record(later) is not None)]
    with (
        weaknesses_reported(console.warn),
        continuing(directory, stage),
        explaining_moved_sources(resolved, directory),
    ):
        outcome = run_pipeline(resolved, directory, stages, console, force=force, options={stage: options})
    if STAGES[stage].shows_result:
        show_result(directory, console)
    _report(stage, outcome, console)


def run_shown_stage(
    stage: str,
    console: Console,
    *,
    run: str | None,
    output_dir: str,
    options: Mapping[str, Any],
    force: bool = False,
    given: Mapping[str, Any] | None = None,
) -> None:
    """The subcommand of a stage with options that only show something (`StageOption.shows_only`); the run stays as it is.

    Args:
        options: keyword options of that stage.
        given: parameters that were given.

    Raises:
        UsageError: with `force`, which redoes a record.
    """
    if force:
        named = [option.flag for option in STAGES[stage].options if option.shows_only and option.keyword in options]
        raise UsageError(
            f"--force redoes what is recorded, and with {', '.join(named)} nothing is", hint="leave one of them out"
        )
    check_surroundings(console)
    request = Request(given or {}, environment={})
    directory, resolved = open_run(request.resolve, run, output_dir)
    console.info(console.say("start.run", path=directory.path))
    with explaining_moved_sources(resolved, directory):
        shown = show_stage(stage, resolved.parameters, directory, console, options)
    if shown:
        result = read_result(directory).as_dict()
        head = {"command": stage, "status": "complete", "run": str(directory.path), "stages": {}}
        console.json({**head, "result": result, **shown})


def show_result(run: RunDirectory, console: Console) -> None:
    """The table at the end: before, after, teacher; where the student lies; what to do next."""
    result, lang = read_result(run), console.lang
    columns, rows = result_table(result, lang)
    if rows:
        console.table(console.say("result.title"), columns, rows, numeric=range(1, len(columns)), to_stdout=True)
    columns, rows = harness_table(result, lang)
    if rows:
        console.table("lm-evaluation-harness", columns, rows, numeric=range(3, len(columns)), to_stdout=True)
    for sentence in filter(
        None, [result.verdict_words(lang), result.following_words(lang), result.teacher_words(lang)]
    ):
        console.prose(sentence)
    if result.student_path is not None:
        console.data(console.say("result.student", path=result.student_path))
    steps = next_steps_of(result, run, lang)
    if steps:
        console.data(f"\n{console.say('result.next')}")
    for step in steps:
        console.prose(f"- {step}")


def _report(command: str, outcome: Outcome, console: Console, **more: Any) -> None:
    """The object of --json, with `more` of a command's own; raises GateReportedError where the gate failed."""
    records = outcome.run.manifest.stages
    console.json(
        {
            "command": command,
            "status": "quality gate failed" if outcome.gate_failure else "complete",
            "run": str(outcome.run.path),
            "stages": {name: {"state": state, **records[name].metrics} for name, state in outcome.stages.items()},
            "result": read_result(outcome.run).as_dict(),
            **more,
        }
    )
    if outcome.gate_failure:
        raise GateReportedError(
            outcome.gate_failure, hint="see validation.json; --quality-gate off only reports the verdict"
        )
