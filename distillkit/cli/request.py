"""What was given to a run, on the command line or in Python, and its way from there through the pipeline."""

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
from distillkit.errors import PreconditionError, UsageError
from distillkit.interrupts import graceful_signals
from distillkit.pipeline.due import planned_stages
from distillkit.pipeline.opening import (
    check_place,
    continue_command,
    create_or_continue,
    open_run,
    target_folder,
    untouched_if_refused,
)
from distillkit.pipeline.running import Outcome, run_pipeline
from distillkit.process_environment import check_one_process, set_aside
from distillkit.processes.channel import current
from distillkit.run.directory import LATEST, RunDirectory
from distillkit.run.source_paths import explaining_moved_sources, with_full_paths
from distillkit.settings.parameters import Parameters
from distillkit.settings.paths import user_path
from distillkit.settings.resolve import Layer, ResolvedConfig, resolve, value_in_layers
from distillkit.stages import wanted_stages


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


def show_parameters(resolved: ResolvedConfig, console: Console, *, everything: bool) -> None:
    """The table at the start of a run: what differs from the defaults, or `everything`, and where it came from."""
    rows = resolved.table_rows(everything=everything, lang=console.lang)
    console.table(
        console.say("start.title"), [console.say(f"start.{name}") for name in ("parameter", "value", "from")], rows
    )
    if not everything:
        console.info(console.say("start.left_out", count=resolved.left_out(rows)))
    for note in resolved.notes:
        console.warn(note)


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
        _show_plan(request, resolved, run, wanted, stages, console)
        return None
    # From here on: a signal while the run directory is made is answered once it is there.
    with graceful_signals(), weaknesses_reported(console.warn):
        return _execute(request, resolved, run, wanted, stages, console, whole=whole, options=options)


def _show_plan(
    request: Request,
    resolved: ResolvedConfig,
    run: RunDirectory | None,
    wanted: list[str],
    stages: list[str] | None,
    console: Console,
) -> None:
    """Refuse what `_execute` would refuse at once, in its order; then show the plan."""
    from distillkit.data.first_look import look_at_texts
    from distillkit.dry_run.plan import show_plan

    with explaining_moved_sources(resolved, run):
        _check_paths_exist(resolved)
    folder = run.path if run else _folder_of_new(resolved, stages)
    if run is None:
        check_place(folder)
        run = RunDirectory.open(folder) if (folder / "manifest.json").exists() else None
    planned = planned_stages(wanted, resolved.parameters, run, request.force)
    reads = any(stage == "prepare-data" and not words.startswith(("skip", "refused")) for stage, words in planned)
    texts = look_at_texts(resolved.parameters, folder.parent) if reads else None
    show_plan(resolved, folder, planned, console, texts, everything=request.show_all)


def _folder_of_new(resolved: ResolvedConfig, stages: list[str] | None) -> Path:
    """Where a new run goes, or one that is continued by its name.

    Raises:
        PreconditionError: the training alone is wanted, and nothing is there.
    """
    folder = target_folder(resolved)
    if stages == ["distill"] and not folder.exists():
        raise PreconditionError(
            f"--only needs prepared data, and there is no run {folder}",
            hint="leave --only out, or prepare them first: distillkit prepare-data",
        )
    return folder


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
        run = create_or_continue(resolved, _folder_of_new(resolved, stages))
    console.info(console.say("start.run", path=run.path))
    single = wanted[-1] if stages else None  # What comes before it is there for its sake.
    with continuing(run, single if single != "distill" else None), untouched_if_refused(run):
        _check_processes(resolved.parameters, run, wanted, force=request.force)
        return run_pipeline(
            resolved, run, wanted, console, force=request.force, may_change_config=whole, options=options
        )


def _check_processes(config: Parameters, run: RunDirectory, wanted: list[str], *, force: bool) -> None:
    """Refuse before anything is computed what the processes of a launcher cannot train together.

    Raises:
        UsageError: there is such a training ahead.
    """
    from distillkit.processes.taking_part import process_count

    record = run.record("distill")
    trained = record is not None and record.status == "complete" and not force
    if process_count() > 1 and "distill" in wanted and not trained:
        from distillkit.training.decisions import check_processes

        check_processes(config, process_count())


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
