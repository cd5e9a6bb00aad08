"""Runs the stages that are due, in order, under the lock of their run; for the command line and `distill_models()` alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distillkit.console import Console, format_duration, sanitize
from distillkit.device.malloc import freed_memory_kept
from distillkit.errors import DistillkitError
from distillkit.interrupts import check_interrupted, graceful_signals
from distillkit.pipeline.configuration import adopt_config
from distillkit.pipeline.due import made_with_options, needs_run, require_earlier_stages, stage_inputs
from distillkit.run.directory import RunDirectory
from distillkit.run.run_threads import RunThreads
from distillkit.settings.parameters import Parameters
from distillkit.settings.resolve import ResolvedConfig
from distillkit.stages import StageResult, load_stage
from distillkit.storage import explained_disk_errors
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
        began = time.monotonic() - run.begin_stage(stage, inputs, from_scratch=from_scratch)
        try:
            with freed_memory_kept(), its_threads:
                result: StageResult = load_stage(stage).run(config, run, console, from_scratch=from_scratch, **options)
        except BaseException as error:
            message = error.message if isinstance(error, DistillkitError) else f"{type(error).__name__}: {error}"
            # Where this cannot be written either, the record still reads "running", which a rerun takes for cut off.
            with contextlib.suppress(DistillkitError):
                run.fail_stage(stage, sanitize(message), time.monotonic() - began)
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
