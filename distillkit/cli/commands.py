"""What each subcommand does: from what was given to a run, through the pipeline, to what is shown at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.durability import weaknesses_reported
from distillkit.errors import PreconditionError, QualityGateError, UsageError
from distillkit.interrupts import check_interrupted, graceful_signals
from distillkit.pipeline.due import planned_stages
from distillkit.pipeline.opening import (
    continue_command,
    create_or_continue,
    open_run,
    target_folder,
    untouched_if_refused,
)
from distillkit.pipeline.running import Outcome, run_pipeline, show_stage
from distillkit.process_environment import check_one_process, set_aside
from distillkit.processes.channel import current
from distillkit.run.directory import LATEST, RunDirectory, list_runs
from distillkit.run.results import harness_table, next_steps_of, read_result, result_table
from distillkit.run.source_paths import explaining_moved_sources, with_full_paths
from distillkit.settings import declared
from distillkit.settings.parameters import Parameters
from distillkit.settings.paths import user_path
from distillkit.settings.resolve import Layer, ResolvedConfig, resolve, value_in_layers
from distillkit.stages import STAGES, stage_parameters, wanted_stages


class GateReportedError(QualityGateError):
    """The quality gate failed, and the JSON object has been printed already."""

    reported = True


@dataclass(frozen=True)
class Request:
    """What was given on the command line or in Python."""

    given: Mapping[str, Any]
    preset: str | None = None
    config_file: Path | None = None
    run: str | None = None
    force: bool = False
    dry_run: bool = False
    show_all: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    label: str = "flag"

    def resolve(self, base: Layer | None = None) -> ResolvedConfig:
        """The configuration, above that of the run that is continued."""
        resolved = resolve(
            self.given, explicit_label=self.label, preset=self.preset, config_file=self.config_file,
            environment=self.environment, base=base,
        )  # fmt: skip
        return with_full_paths(resolved)

    def value(self, name: str) -> Any:
        """One parameter as it was given in any way, else its default; asked before it is known which run is meant."""
        return value_in_layers(
            name, self.given, explicit_label=self.label, preset=self.preset, config_file=self.config_file,
            environment=self.environment,
        )  # fmt: skip

    @property
    def output_dir(self) -> str:
        """Where the runs are."""
        return str(self.value("output_dir"))

    def on_newest_run(self) -> Request:
        """The same, on the newest run of the output directory."""
        return dataclasses.replace(self, run=LATEST)

    @property
    def empty(self) -> bool:
        return not self.given and self.preset is None and self.config_file is None


def show_parameters(resolved: ResolvedConfig, console: Console, *, everything: bool) -> None:
    """The table at the start of a run: what differs from the defaults, or `everything`, and where it came from."""
    rows = resolved.table_rows(everything=everything)
    console.table(
        console.say("start.title"), [console.say(f"start.{name}") for name in ("parameter", "value", "from")], rows
    )
    if not everything:
        console.info(console.say("start.left_out", count=resolved.left_out(rows)))
    for note in resolved.notes:
        console.warn(note)


@contextlib.contextmanager
def continuing(run: RunDirectory, stage: str | None = None) -> Iterator[None]:
    """Give an error of the block the command that continues, and its run."""
    try:
        yield
    except Exception as error:
        error.run = run.path  # type: ignore[attr-defined]
        if getattr(error, "exit_code", 1) != 2 and getattr(error, "next_command", None) is None:
            error.next_command = continue_command(run, stage)  # type: ignore[attr-defined]
        raise


def check_surroundings(console: Console) -> None:
    """Refuse to be one of several processes that do not know of each other, and say which variables of the environment are
    not used.

    Raises:
        UsageError: a launcher says that there are several processes.
    """
    channel = current()
    connected = channel is not None
    if channel is None:
        check_one_process()
    else:
        console.info(
            f"{channel.place.size} processes: they train together and share the teacher pass; all else is done by process 0"
        )
    for line in set_aside().lines(one_process=not connected):
        console.info(line)


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


def execute(
    request: Request,
    console: Console,
    stages: list[str] | None = None,
    *,
    whole: bool = False,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Outcome | None:
    """Resolve, open or create the run, and run `stages` (None: all that a `distill` runs). None after a dry run.

    Args:
        options: stage name to keyword options of that stage alone.
    """
    check_surroundings(console)
    if request.run is not None:
        if request.given.get("folder_name") is not None:
            raise UsageError(
                "--run and --folder-name are both given",
                hint="--run continues an existing run, --folder-name names a new one",
            )
        run, resolved = open_run(request.resolve, request.run, request.output_dir)
    else:
        resolved, run = request.resolve(), None
    if run is not None or resolved.parameters.folder_name is not None:
        with explaining_moved_sources(resolved, run):
            _check_apart(resolved.parameters, run.path if run else target_folder(resolved))
    wanted = stages or wanted_stages(resolved.parameters)
    if request.dry_run:
        from distillkit.dry_run.plan import show_plan

        folder = run.path if run else target_folder(resolved)
        if run is None and (folder / "manifest.json").exists():
            run = RunDirectory.open(folder)
        planned = planned_stages(wanted, resolved.parameters, run, request.force)
        show_plan(resolved, folder, planned, console, everything=request.show_all)
        return None
    # From here on: a signal while the run directory is made is answered once it is there.
    with graceful_signals(), weaknesses_reported(console.warn):
        return _execute(request, resolved, run, wanted, stages, console, whole=whole, options=options)


def _execute(
    request: Request,
    resolved: ResolvedConfig,
    run: RunDirectory | None,
    wanted: list[str],
    stages: list[str] | None,
    console: Console,
    *,
    whole: bool,
    options: Mapping[str, Mapping[str, Any]] | None,
) -> Outcome:
    with explaining_moved_sources(resolved, run):
        _check_paths_exist(resolved)
    show_parameters(resolved, console, everything=request.show_all)
    if run is None:
        folder = target_folder(resolved)
        if stages == ["distill"] and not folder.exists():
            raise PreconditionError(
                f"--only needs prepared data, and there is no run {folder}",
                hint="leave --only out, or prepare them first: distillkit prepare-data",
            )
        run = create_or_continue(resolved, folder)
    console.info(console.say("start.run", path=run.path))
    single = wanted[-1] if stages else None  # What comes before it is there for its sake.
    with continuing(run, single if single != "distill" else None), untouched_if_refused(run):
        return run_pipeline(
            resolved, run, wanted, console, force=request.force, may_change_config=whole, options=options
        )


def _check_paths_exist(resolved: ResolvedConfig) -> None:
    """A path that does not exist is refused before the run directory is made."""
    from distillkit.models.references import parse_student_reference, parse_teacher_reference

    parse_teacher_reference(resolved.parameters)
    parse_student_reference(resolved.parameters)
    from distillkit.data.sources import check_source

    check_source(resolved.parameters)


def _check_apart(config: Parameters, folder: Path) -> None:
    """Refuse models and texts that lie in the run directory: it is the run's own to replace, and to delete.

    Raises:
        UsageError: one of them lies there.
    """
    from distillkit.data.sources import local_path, source_configs
    from distillkit.models.references import parse_student_reference, parse_teacher_reference

    name = "dataset" if config.mix is None else "mix"
    texts = [path for own in source_configs(config) if (path := local_path(own)) is not None]
    inputs = [
        ("teacher_model", parse_teacher_reference(config).path),
        ("student_model", parse_student_reference(config).path),
        *((name, user_path(path, name)) for path in texts),
    ]
    for name, path in inputs:
        if path is not None and path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"{name}: {path} lies in the run directory {folder}, whose files this run replaces",
                hint="copy it elsewhere first, or start another run with a new --folder-name",
            )


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
    for sentence in filter(None, [result.verdict_words(lang), result.teacher_words(lang)]):
        console.prose(sentence)
    if result.student_path is not None:
        console.data(console.say("result.student", path=result.student_path))
    steps = next_steps_of(result, run, lang)
    if steps:
        console.data(f"\n{console.say('result.next')}")
    for step in steps:
        console.prose(f"- {step}")
