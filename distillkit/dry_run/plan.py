"""--dry-run: what a run would do, need and take. Changes nothing on disk and downloads no weights.

What is decided is decided by the functions that the run asks (`training.decisions`, `training.compiling`); sizes follow from
the models' configurations, times from what a layer or two of them take on this machine now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.data.first_look import FirstLook
from distillkit.device.malloc import freed_memory_kept
from distillkit.device.memory import free_memory_bytes
from distillkit.device.precision import Compute, choose_compute
from distillkit.device.processors import choose_threads, with_threads
from distillkit.dry_run.control import COMPARED, PHASE, PlannedTraining, planned_control
from distillkit.dry_run.further_teachers import PlannedTeacher, all_facts, planned_teachers
from distillkit.dry_run.inputs import (
    Amounts,
    PlannedModels,
    count_texts,
    find_models,
    makes_start,
    teacher_facts,
    tuning_facts,
)
from distillkit.dry_run.memory_model import memory_bytes
from distillkit.dry_run.on_policy import PlannedSamples
from distillkit.dry_run.plan_words import plan_rows
from distillkit.dry_run.served import planned_cache_bytes, planned_requests
from distillkit.dry_run.time_model import TaughtBy, Work, add_teacher, phase_seconds
from distillkit.errors import DistillkitError
from distillkit.harness.tasks import tasks_words
from distillkit.models.references import parse_student_reference
from distillkit.models.shape import ModelShape
from distillkit.processes.taking_part import process_count
from distillkit.run.context import texts_per_example
from distillkit.run.student_size import StudentSize
from distillkit.settings.conditions import is_served
from distillkit.settings.parameters import Parameters
from distillkit.settings.resolve import ResolvedConfig
from distillkit.settings.teacher_values import teacher_weights
from distillkit.storage import bytes_below, free_disk_bytes
from distillkit.teachers.choices import PlacementChoice, TeacherFacts, choose_placement
from distillkit.teachers.sources import remembered_choice
from distillkit.training.arguments import times_read, total_steps
from distillkit.training.compiling import CompileChoice, choose_compile
from distillkit.training.control import ControlChoice, control_config, settled_control
from distillkit.training.decisions import (
    TeacherDecision,
    TuningFacts,
    check_processes,
    decide_disk,
    decide_teachers,
    disk_bytes,
    together,
    uses_white_box_teacher,
)
from distillkit.training.disk import finished_disk_bytes, replaced_bytes
from distillkit.training.mixed_teachers import cache_note
from distillkit.training.optimizers import check_optimizer
from distillkit.words import reworded


@dataclass(frozen=True)
class PlannedDecisions:
    """What the run would decide.

    Attributes:
        teacher: how a white-box run has its teacher; None where it has none, or where its size is not known.
        devices: over which GPUs that teacher is spread; None likewise.
        further: how it has the others.
        compile: whether the loss is compiled; None where the student's size is not known.
        disk_bytes: what the training needs on the disk, its control left out; None where a size is not known.
        refused: why the run would refuse to begin; None if it would not.
    """

    teacher: TeacherDecision | None = None
    devices: PlacementChoice | None = None
    further: Sequence[TeacherDecision] = ()
    compile: CompileChoice | None = None
    disk_bytes: int | None = None
    refused: str | None = None


def show_plan(
    resolved: ResolvedConfig,
    folder: Path,
    planned: Sequence[tuple[str, str]],
    console: Console,
    texts: FirstLook | None = None,
    *,
    everything: bool = False,
) -> None:
    """Print the plan, and as --json give it as one object.

    Args:
        planned: what would happen to each stage (`pipeline.due.planned_stages`).
        texts: what is known of texts that are to be prepared.
        everything: show all parameters, also those that have their defaults.
    """
    config = resolved.parameters
    shown = resolved.table_rows(everything=everything, lang=console.lang)
    say, lang = console.say, console.lang
    columns = [say(f"start.{name}") for name in ("parameter", "value", "from")]
    console.table(say("start.title"), columns, shown, to_stdout=True)
    if not everything:
        console.info(say("start.left_out", count=resolved.left_out(shown)))
    fates = [(stage, reworded(lang, fate)) for stage, fate in planned]
    console.table(say("plan.stages"), [say("plan.stage"), say("plan.fate")], fates, to_stdout=True)
    estimate = estimate_run(config, folder, [stage for stage, words in planned if not words.startswith("skip")], texts)
    unknown = None
    if estimate["teacher_parameters"] is not None and parse_student_reference(config).automatic:
        unknown = say("plan.unknown_shape", count=f"{config.target_parameters:,}")
    rows = plan_rows(
        estimate,
        teacher=config.teacher_model_path or config.teacher_model,
        student=config.student_model_path or config.student_model,
        student_unknown=unknown,
        lang=lang,
    )
    console.table(say("plan.title"), ["", ""], rows, to_stdout=True)
    console.info(say("plan.nothing_changed", folder=folder))
    console.json(
        {
            "command": "dry-run", "status": "planned", "run": str(folder),
            "parameters": {name: {"value": value, "from": source} for name, value, source in resolved.rows()},
            "stages": dict(planned), "estimate": estimate,
        }
    )  # fmt: skip


def estimate_run(config: Parameters, folder: Path, stages: list[str], texts: FirstLook | None = None) -> dict[str, Any]:
    """Decisions, sizes, memory, disk and times; None for what cannot be known without downloading.

    The number of tokens is an upper bound until the data are prepared: every example is taken to be full.

    Args:
        folder: the run directory, which need not be there.
        stages: that are timed.
        texts: what is known of texts that are to be prepared.
    """
    compute = choose_compute(config)
    models = find_models(config, folder)
    amounts = count_texts(config, folder, texts)
    facts = teacher_facts(config, compute, folder, models, amounts) if uses_white_box_teacher(config) else None
    tuning = tuning_facts(config, compute, folder, models, amounts)
    further = planned_teachers(config, compute, folder, models, amounts)
    decisions = plan_decisions(config, compute, folder, models, amounts, facts, tuning, further)
    teacher, cache = decisions.teacher, None if facts is None else 0
    if facts is not None and teacher is not None:
        decided = zip(all_facts(facts, further) or [facts], [teacher, *decisions.further], strict=True)
        cache = sum(kept_bytes(its_facts, its) for its_facts, its in decided)
    elif is_served(vars(config)) and models.student_shape is not None:
        cache = planned_cache_bytes(config, amounts, models.student_shape.vocabulary)
    elif not uses_white_box_teacher(config):
        cache = 0
    steps = total_steps(config, amounts.examples * texts_per_example(config))
    samples = PlannedSamples.of(config, steps)
    work = Work(
        amounts, steps,
        cache=teacher.cache.mode if teacher else "off",
        streams=teacher is not None and teacher.streaming.on,
        teacher_share=_missing_share(facts, teacher),
        tunes=tuning is not None,
        devices=len(decisions.devices.placement.blocks) if decisions.devices and decisions.devices.placement else 1,
        compiled=decisions.compile is not None and decisions.compile.on,
    )  # fmt: skip
    planned = PlannedTraining(
        folder, stages, total_steps(config, amounts.examples),
        StudentSize.of(config, models.student_shape) if models.student_shape else None,
        together([teacher, *decisions.further]).cache_bytes if teacher else 0,
    )  # fmt: skip
    others = [
        TaughtBy(one.shape, _work_of(work, one, decision))
        for one, decision in zip(further, decisions.further, strict=False)
        if one.shape is not None
    ]
    control, times = _times(config, compute, models, work, planned, others)
    disk = decisions.disk_bytes
    if disk is not None and planned.size is not None and control is not None and control.on:
        disk += finished_disk_bytes(config, planned.size)
    return {
        "device": compute.description,
        "processes": process_count(),
        "teacher_parameters": models.teacher_shape.parameters if models.teacher_shape else None,
        "student_parameters": models.student_shape.parameters if models.student_shape else None,
        "trained_parameters": planned.size.trained if planned.size and config.adapter != "none" else None,
        "texts": amounts.known,
        "training_tokens_at_most": round(
            amounts.student_tokens * times_read(config, amounts.examples) * (1 - samples.share) + samples.targets
        ),
        "optimizer_steps_at_most": steps,
        "early_stopping": _patience_words(config.early_stopping_patience) if config.early_stopping_patience else None,
        "teacher_cache": _reason(teacher.cache.mode, teacher.cache.why) if teacher else None,
        "teacher_streaming": _reason("on" if teacher.streaming.on else "off", teacher.streaming.why) if teacher else None,
        "teacher_devices": _spread_words(decisions.devices),
        "compiled_loss": _reason("on" if decisions.compile.on else "off", decisions.compile.why) if decisions.compile else None,
        "control": _reason("on" if control.on else "off", control.why) if control else None,
        **planned_requests(config, folder, amounts),
        **samples.figures(),
        **({"answers_of_each_model_at_most": amounts.questions} if amounts.questions and "validate" in stages else {}),
        **({"lm_eval": tasks_words(config)} if config.lm_eval is not None and "validate" in stages else {}),
        **_teachers(config, models, further, decisions),
        "refused": decisions.refused,
        "disk_bytes": disk,
        "teacher_cache_bytes": cache,
        "disk_free_bytes": free_disk_bytes(folder),
        "memory_bytes": memory_bytes(*_computed_here(config, models, compute), models.student_shape, work, others),
        "memory_free_bytes": free_memory_bytes(compute.device),
        **times,
    }  # fmt: skip


def kept_bytes(facts: TeacherFacts, teacher: TeacherDecision) -> int:
    """What the cache of a teacher takes."""
    return {"exact": facts.exact_bytes, "sparse": facts.sparse_missing_bytes}.get(teacher.cache.mode, 0)


def _computed_here(
    config: Parameters, models: PlannedModels, compute: Compute
) -> tuple[Parameters, Compute, ModelShape | None]:
    """The configuration and the teacher of what this machine computes: with a teacher behind a server the training alone, as
    without a teacher. Its time is the server's, and not known."""
    if is_served(vars(config)):
        return control_config(config), compute, models.student_shape
    return config, compute, models.teacher_shape


def _patience_words(patience: int) -> str:
    return f"after {patience} held-out evaluation(s) without a new best score"


def _spread_words(devices: PlacementChoice | None) -> str | None:
    """The GPUs and why; None where the teacher is on one device."""
    if devices is None or devices.placement is None:
        return None
    return _reason(",".join(map(str, devices.placement.blocks)), devices.why)


def _reason(choice: str, why: str) -> str:
    return f"{choice}: {why}"


def plan_decisions(
    config: Parameters,
    compute: Compute,
    folder: Path,
    models: PlannedModels,
    amounts: Amounts,
    facts: TeacherFacts | None,
    tuning: TuningFacts | None = None,
    further: Sequence[PlannedTeacher] = (),
) -> PlannedDecisions:
    """What the run would decide, asked of the functions that decide it there."""
    teacher, devices, compiled, disk = None, None, None, None
    others: list[TeacherDecision] = []
    student = models.student_shape
    try:
        check_processes(config, process_count())
        known = all_facts(facts, further)
        if known is not None:
            devices = choose_placement(config, known[0].memory)
            notes = [remembered_choice(cache_note(folder / "teacher", number)) for number in range(1, len(known) + 1)]
            teacher, *others = decide_teachers(config, known, notes, tuning)
        whole = None if teacher is None else together([teacher, *others])
        if student is not None:
            settled = settled_control(config)
            control = settled is not None and settled.on
            disk = disk_bytes(config, StudentSize.of(config, student), whole)
            disk += 4 * student.parameters * makes_start(config, models, folder)
            free = free_disk_bytes(folder) + replaced_bytes(folder, teacher.tunes if teacher else 0)
            free += bytes_below(folder / "control") if control else 0
            decide_disk(config, folder, free, StudentSize.of(config, student), whole, control=control)
            texts = texts_per_example(config)
            inputs = amounts.student_inputs * texts * times_read(config, amounts.examples * texts)
            logits = round(inputs * student.vocabulary)
            check_optimizer(config)
            compiled = choose_compile(config, compute.device, logits)
    except DistillkitError as error:
        return PlannedDecisions(teacher, devices, others, compiled, disk, f"{error.message}; {error.hint}")
    return PlannedDecisions(teacher, devices, others, compiled, disk)


def _teachers(
    config: Parameters, models: PlannedModels, further: Sequence[PlannedTeacher], decisions: PlannedDecisions
) -> dict[str, Any]:
    """Of several teachers each one; {} of one."""
    if not further:
        return {}
    weights = teacher_weights(config)
    names = [config.teacher_model_path or config.teacher_model, *(one.name for one in further)]
    shapes = [models.teacher_shape, *(one.shape for one in further)]
    decided = [decisions.teacher, *decisions.further] if decisions.further else [None] * len(names)
    return {
        "teachers": [
            {
                "name": name,
                "weight": weight,
                "parameters": shape.parameters if shape else None,
                "teacher_cache": _reason(its.cache.mode, its.cache.why) if its else None,
                "teacher_streaming": _reason("on" if its.streaming.on else "off", its.streaming.why) if its else None,
            }
            for name, weight, shape, its in zip(names, weights, shapes, decided, strict=True)
        ]
    }


def _work_of(work: Work, teacher: PlannedTeacher, decision: TeacherDecision) -> Work:
    """The work of a run with a further teacher in the place of the first."""
    return replace(
        work, amounts=teacher.amounts, cache=decision.cache.mode, streams=decision.streaming.on,
        teacher_share=_missing_share(teacher.facts, decision), tunes=False,
    )  # fmt: skip


def _missing_share(facts: TeacherFacts | None, teacher: TeacherDecision | None) -> float:
    """How much of the teacher pass is still to be done."""
    if facts is None or teacher is None or teacher.cache.mode != "exact" or not facts.exact_bytes:
        return 1.0
    return facts.exact_missing_bytes / facts.exact_bytes


def _times(
    config: Parameters,
    compute: Compute,
    models: PlannedModels,
    work: Work,
    planned: PlannedTraining,
    others: Sequence[TaughtBy] = (),
) -> tuple[ControlChoice | None, dict[str, Any]]:
    """Whether there is a control, and seconds of each phase and of all together; None where the models are not here yet."""
    stages = planned.stages
    own, compute, teacher = _computed_here(config, models, compute)
    if teacher is None or models.student_shape is None:
        return planned_control(config, planned, None), {"phases": None, "total_seconds": None}
    if not stages:
        return planned_control(config, planned, None), {"phases": {}, "total_seconds": 0.0}
    # What the control is measured against counts also where it is there already.
    timed = [*stages, *(stage for stage in COMPARED if "control" in stages and stage not in stages)]
    threads = choose_threads(config.threads, computes_here=compute.device.type == "cpu")  # As the run will do it.
    with freed_memory_kept(), with_threads(threads.count):
        phases = phase_seconds(own, compute, teacher, models.student_shape, work, timed)
        for other in others:
            add_teacher(phases, own, compute, other)
    control = planned_control(config, planned, phases)
    left_out = {phase for stage, compared in COMPARED.items() if stage not in stages for phase in compared}
    if control is None or not control.on:
        left_out.add(PHASE)
    phases = {name: seconds for name, seconds in phases.items() if name not in left_out}
    return control, {
        "phases": {name: round(seconds, 2) for name, seconds in phases.items()},
        "total_seconds": round(sum(phases.values()), 1),
    }
