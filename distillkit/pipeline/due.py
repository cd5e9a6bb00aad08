"""Which stages are due: what the result of each depends on, and whether it still holds, has to be made or is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from distillkit.errors import PreconditionError
from distillkit.pipeline.configuration import has_grown
from distillkit.pipeline.opening import continue_command
from distillkit.run.directory import RESULT_OF, RunDirectory
from distillkit.run.source_paths import same_source
from distillkit.settings import declared
from distillkit.settings.parameters import Parameters
from distillkit.stages import STAGES, load_stage

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
        and has_grown(name, json.loads(old[name]), json.loads(new[name]))
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
        return "it was cut off" if record.status == "running" else "it did not come to its end"
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
