"""Which stages run, which are skipped, which are refused; used by the command line and by `distill_models()` alike."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillkit.console import Console, format_duration, sanitize
from distillkit.device.malloc import freed_memory_kept
from distillkit.errors import DistillkitError, PreconditionError, UsageError
from distillkit.interrupts import check_interrupted, graceful_signals
from distillkit.run.directory import LATEST, RESULT_OF, RunDirectory, find_run
from distillkit.run.run_threads import RunThreads
from distillkit.run.source_paths import THIS_RUN, same_source
from distillkit.settings import declared
from distillkit.settings.parameters import Parameters
from distillkit.settings.paths import check_folder_name, new_folder_name, user_path
from distillkit.settings.resolve import Layer, ResolvedConfig
from distillkit.stages import STAGES, StageResult, load_stage
from distillkit.storage import explained_disk_errors, nearest_existing
from distillkit.words import reworded


@dataclass
class Outcome:
    """What came of a call of `run_pipeline`.

    Attributes:
        stages: those that it was asked for: "complete" (it ran now) or "skipped" (it was complete already).
        gate_failure: why the quality gate fails, if it does.
    """

    run: RunDirectory
    stages: dict[str, str] = field(default_factory=dict)
    gate_failure: str | None = None


def continue_command(run: RunDirectory | Path, stage: str | None = None) -> str:
    """The shell command that continues a run: the whole of it, or one stage."""
    path = run.path if isinstance(run, RunDirectory) else run
    return f"distillkit {stage or 'distill'} --run {shlex.quote(str(path))}"


# --- which run -------------------------------------------------------------------------------------------------------


def open_run(
    resolve_with: Callable[[Layer | None], ResolvedConfig], run: str | None, output_dir: str
) -> tuple[RunDirectory, ResolvedConfig]:
    """The existing run that `--run` names (None or "latest": the newest), its configuration under what is given now."""
    existing = find_run(None if run == LATEST else run, user_path(output_dir, "--output-dir"))
    return existing, resolve_with(Layer(THIS_RUN, {**existing.manifest.config}))


def target_folder(resolved: ResolvedConfig) -> Path:
    """Where a run with this configuration goes."""
    config = resolved.parameters
    output_dir = Path(config.output_dir).expanduser()
    if config.folder_name is not None:
        return output_dir / check_folder_name(config.folder_name)
    teacher = config.teacher_model_path or config.teacher_model
    student = config.student_model_path or config.student_model
    return output_dir / new_folder_name(
        output_dir,
        teacher,
        student,
        config.box_type,
        config.dataset_path or (config.dataset if config.mix is None else "mix"),
    )


def create_or_continue(resolved: ResolvedConfig, folder: Path | None = None) -> RunDirectory:
    """The run directory of this configuration: a new one, or an existing one of the same folder name."""
    folder = folder or target_folder(resolved)
    if folder.is_symlink() or (folder.parent.exists() and not _is_inside(folder, folder.parent)):
        raise PreconditionError(
            f"{folder} is a link that leads elsewhere", hint="choose another --folder-name", exit_code=2
        )
    existing = nearest_existing(folder)
    if existing.exists() and not existing.is_dir():
        raise UsageError(f"{existing} is a file, so no run can lie in it", hint="choose another --output-dir")
    if (folder / "manifest.json").exists():
        run = RunDirectory.open(folder)
        run.complete_creation()
        return run
    return RunDirectory.create(folder, resolved)


@contextlib.contextmanager
def untouched_if_refused(run: RunDirectory) -> Iterator[None]:
    """Take a run away again that is refused as wrong usage (exit code 2) before it has any result."""
    try:
        yield
    except UsageError:
        costly = [name for name, spec in STAGES.items() if not spec.cheap]
        if not any(record.status == "complete" for name in costly if (record := run.record(name))):
            run.discard()
        raise


def _is_inside(path: Path, parent: Path) -> bool:
    return path.resolve().parent == parent.resolve()


def config_differences(run: RunDirectory, new: Mapping[str, Any]) -> list[str]:
    """`batch_size: 8 -> 4` for each parameter that contradicts a result of the run.

    No contradiction: a value on which no stage depends that has begun, one on which only cheap stages depend, one that
    may grow and has grown, and another place of the same models and texts. A parameter that the version which began the run did
    not have worked as its default does.
    """
    old = {name: declared.default(name) for name in declared.fields()} | run.manifest.config
    known = {name: value for name, value in new.items() if name in declared.fields()}
    return [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in declared.fields()
        if old.get(name) != new.get(name)
        and _is_settled(declared.facts(name).affects, run)
        and not _has_grown(name, old.get(name), new.get(name))
        and not same_source(name, Parameters(**known), run)
    ]


def _is_settled(stage: str | None, run: RunDirectory) -> bool:
    """Whether what `stage` was given cannot change any more without doing work again."""
    return stage is not None and not STAGES[stage].cheap and run.record(stage) is not None


def _has_grown(name: str, old: Any, new: Any) -> bool:
    """Whether the new value of a parameter extends a result that was made with the old one."""
    return declared.facts(name).may_grow and isinstance(old, int) and isinstance(new, int) and new > old


def adopt_config(run: RunDirectory, resolved: ResolvedConfig, *, force: bool, can_change: bool) -> None:
    """Make `resolved` the configuration of the run.

    Raises:
        PreconditionError: results of the run depend on something that differs, and `force` was not given.
    """
    new = {
        **resolved.as_dict(),
        **{name: run.manifest.config.get(name) for name in declared.location_names()},
    }
    differences = config_differences(run, new)
    if differences and not (force and can_change):
        raise PreconditionError(
            f"{run.path} was made with another configuration ({'; '.join(differences)})",
            hint="use the same values, start another run with a new --folder-name, or add --force to distillkit distill "
            "to start this one from scratch",
        )
    if new != run.manifest.config:
        run.manifest.config = new
        run.manifest.sources = {
            name: run.manifest.sources.get(name, label) if label == THIS_RUN else label
            for name, label in resolved.sources.items()
        }
        run.save_config()
        run.save()


# --- which stages ----------------------------------------------------------------------------------------------------


# Before the name of an option, among the inputs of a stage.
_OPTION = "option "


def stage_inputs(
    stage: str, config: Parameters, run: RunDirectory, options: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Everything that the result of a stage depends on, as name to value or fingerprint.

    Args:
        options: of the stage alone; default: those that its result was made with.
    """
    values = dataclasses.asdict(config)
    inputs = {
        name: json.dumps(values[name], sort_keys=True)
        for name in declared.fields()
        if declared.facts(name).affects == stage
    }
    inputs |= {RESULT_OF + earlier: run.result_fingerprint(earlier) for earlier in STAGES[stage].after}
    inputs |= {RESULT_OF + earlier: run.result_fingerprint(earlier) for earlier in _read_too(stage, run)}
    module = load_stage(stage)
    if hasattr(module, "extra_inputs"):
        inputs.update(module.extra_inputs(config, run))
    options = made_with_options(stage, run) if options is None else options
    return inputs | {_OPTION + name: json.dumps(value) for name, value in options.items()}


def made_with_options(stage: str, run: RunDirectory) -> dict[str, Any]:
    """The options that the complete result of a stage was made with: a whole run leaves it alone, or makes it so again."""
    record = run.record(stage)
    if record is None or record.status != "complete":
        return {}
    kept = {option.keyword for option in STAGES[stage].options if not option.shows_only}
    found = {name.removeprefix(_OPTION): value for name, value in record.inputs.items() if name.startswith(_OPTION)}
    return {name: json.loads(value) for name, value in found.items() if name in kept}


def _read_too(stage: str, run: RunDirectory) -> list[str]:
    """The stages that `stage` reads where there are any, of which there is a result."""
    found = {earlier: run.record(earlier) for earlier in STAGES[stage].reads if run.holds(earlier)}
    return [earlier for earlier, record in found.items() if record is not None and record.outputs]


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What differs; a parameter that is missing in `old`, which an earlier version wrote, was what its default is."""
    implied = {name: json.dumps(declared.default(name), sort_keys=True) for name in new if name in declared.fields()}
    known = {**implied, **old}
    return sorted(name for name in {*known, *new} if known.get(name) != new.get(name))


def _only_grown(old: Mapping[str, str], new: Mapping[str, str], changed: list[str]) -> bool:
    """Whether all changed inputs are parameters that have grown, so that the result is extended."""
    return all(
        name in old
        and name in new
        and name in declared.fields()
        and _has_grown(name, json.loads(old[name]), json.loads(new[name]))
        for name in changed
    )


def needs_run(stage: str, config: Parameters, run: RunDirectory, inputs: Mapping[str, str], force: bool) -> str | None:
    """Why a stage has to run now, or None where its complete result still holds.

    Raises:
        PreconditionError: what it was made from has changed, and redoing it would discard work: --force is needed.
    """
    record = run.record(stage)
    if record is None:
        return "not done yet"
    if force:
        return "forced"
    changed = [
        name
        for name in _changed(record.inputs, inputs)
        if not (name in record.inputs and name in inputs and same_source(name, config, run))
    ]
    if changed and not STAGES[stage].cheap and not _only_grown(record.inputs, inputs, changed):
        raise _mended_by(
            f"{continue_command(run, stage)} --force",
            f"{stage} was made from something else; changed since: {', '.join(changed)}",
        )
    if record.status != "complete":
        return f"it was {record.status}" if record.status != "running" else "it was cut off"
    if changed:
        return f"changed: {', '.join(changed)}"
    problem = run.output_problem(stage)
    if problem is not None:
        if STAGES[stage].cheap:
            return problem
        raise _mended_by(f"{continue_command(run, stage)} --force", f"the result of {stage} is damaged: {problem}")
    return None


def planned_stages(
    stages: list[str], config: Parameters, run: RunDirectory | None, force: bool
) -> list[tuple[str, str]]:
    """What would happen to each stage, judged as the run itself would judge it."""
    rows: list[tuple[str, str]] = []
    redone = None  # An earlier stage that would run, so that what follows from it is not known yet.
    for stage in stages:
        fate = _planned_fate(stage, config, run, force, redone)
        rows.append((stage, fate))
        if redone is None and not fate.startswith("skip"):
            redone = stage
    return rows


def _planned_fate(stage: str, config: Parameters, run: RunDirectory | None, force: bool, redone: str | None) -> str:
    why = STAGES[stage].not_made(config, run)
    if why is not None:
        return f"skip, not made: {why}"
    record = run.record(stage) if run else None
    if run is None or record is None:
        return "run"
    if force:
        return "run again (--force)"
    if redone in (*STAGES[stage].after, *STAGES[stage].reads) and STAGES[stage].cheap:
        return f"run again after {redone}"
    try:
        reason = needs_run(stage, config, run, stage_inputs(stage, config, run), force)
    except PreconditionError as error:
        return f"refused: {error.message}; {error.hint}"
    if reason is None:
        return "skip, complete"
    continues = record.status != "complete" and not STAGES[stage].cheap
    return f"{'continue' if continues else 'run again'}, {reason}"


def _mended_by(command: str, message: str) -> PreconditionError:
    """An error that another command mends than the one that failed."""
    error = PreconditionError(message, hint=f"run: {command}")
    error.next_command = command
    return error


def require_earlier_stages(stage: str, run: RunDirectory) -> None:
    """Raise PreconditionError unless everything that `stage` reads is complete and unchanged."""
    for earlier in STAGES[stage].after:
        record = run.record(earlier)
        if record is None or record.status != "complete":
            state = "has not run yet" if record is None else f"is {record.status}"
            raise _mended_by(continue_command(run, earlier), f"{stage} needs {earlier}, which {state}")
        problem = run.output_problem(earlier)
        if problem is not None:
            raise _mended_by(
                f"{continue_command(run, earlier)} --force", f"{stage} needs the result of {earlier}, but {problem}"
            )
    for earlier in _read_too(stage, run):
        problem = run.output_problem(earlier)
        if problem is not None:
            raise _mended_by(continue_command(run, earlier), f"{stage} reads the result of {earlier}, but {problem}")


def run_stage(
    stage: str,
    config: Parameters,
    run: RunDirectory,
    console: Console,
    *,
    force: bool = False,
    options: Mapping[str, Any] | None = None,
    place: str = "",
    threads: RunThreads | None = None,
) -> tuple[str, StageResult | None]:
    """Run one stage if it has to run, and record what it did. Returns ("complete" | "skipped", its result).

    Args:
        options: keyword options of this stage; None where it is one of a whole run (`made_with_options`).
        place: `3 of 6`, where it is one of several.
        threads: of the call that it belongs to.
    """
    require_earlier_stages(stage, run)
    options = made_with_options(stage, run) if options is None else options
    inputs = stage_inputs(stage, config, run, options)
    reason = needs_run(stage, config, run, inputs, force)
    if reason is None:
        console.info(console.say("stage.skipped", stage=stage))
        return "skipped", None
    said = "" if reason in ("not done yet", "forced") else f" ({reworded(console.lang, reason)})"
    with console.stage(f"{stage}{said}", place):
        from_scratch = force and run.record(stage) is not None
        its_threads = (threads or RunThreads(config, run, console)).of_stage(stage, from_scratch=from_scratch)
        run.begin_stage(stage, inputs)
        began = time.monotonic()
        try:
            with freed_memory_kept(), its_threads:
                result: StageResult = load_stage(stage).run(config, run, console, from_scratch=from_scratch, **options)
        except BaseException as error:
            message = error.message if isinstance(error, DistillkitError) else f"{type(error).__name__}: {error}"
            # Where this cannot be written either, the record still reads "running", which a rerun takes for cut off.
            with contextlib.suppress(DistillkitError):
                run.fail_stage(stage, sanitize(message))
            raise
        seconds = time.monotonic() - began
        run.finish_stage(stage, result.outputs, {**result.metrics, "seconds": round(seconds, 3)})
        console.success(f"{stage}: {result.summary} ({format_duration(seconds)})")
    return "complete", result


def show_stage(
    stage: str, config: Parameters, run: RunDirectory, console: Console, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What a stage only shows (`StageOption.shows_only`): nothing is recorded, and no lock is held.

    Raises:
        PreconditionError: an earlier stage that it reads is not complete.
        DistillkitError: it failed.
        Interrupted: a signal arrived.
    """
    require_earlier_stages(stage, run)
    threads = RunThreads(config, run, console).of_stage(stage, from_scratch=False)
    with freed_memory_kept(), threads:
        return load_stage(stage).show(config, run, console, **options)


def _report_after(outcome: Outcome, console: Console) -> None:
    from distillkit.reporting.write import report_after

    report_after(outcome.run, outcome.stages, console.lang, asked=console.lang_asked)


def run_pipeline(
    resolved: ResolvedConfig,
    run: RunDirectory,
    stages: list[str],
    console: Console,
    *,
    force: bool = False,
    may_change_config: bool = False,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Outcome:
    """Run `stages` on a run directory, in order, under its lock.

    Args:
        force: redo these stages though they are complete.
        may_change_config: with `force`, the configuration may change too.
        options: stage name to keyword options of that stage alone.

    Raises:
        DistillkitError: a stage failed; the run can be continued.
        Interrupted: a signal arrived; the run can be continued.
    """
    outcome = Outcome(run)
    with explained_disk_errors(run.path), run.locked(), graceful_signals():
        for path in run.tidy():
            console.warn(f"ignored and deleted {path}: it was being written when an earlier attempt was cut off")
        adopt_config(run, resolved, force=force, can_change=may_change_config)
        threads = RunThreads(resolved.parameters, run, console)
        for number, stage in enumerate(stages, 1):
            # A stage that had got to its end when a signal came is complete; the next one is not begun.
            check_interrupted()
            stage_options = (options or {}).get(stage)
            state, result = run_stage(
                stage, resolved.parameters, run, console, force=force, options=stage_options,
                threads=threads, place=f"{number} of {len(stages)}" if len(stages) > 1 else "",
            )  # fmt: skip
            outcome.stages[stage] = state
            if result is not None and result.gate_failure:
                outcome.gate_failure = result.gate_failure
            record = run.record(stage)
            if state == "skipped" and record is not None:
                outcome.gate_failure = record.metrics.get("gate_failure") or outcome.gate_failure
        _report_after(outcome, console)
        check_interrupted()
    return outcome
