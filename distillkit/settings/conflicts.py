"""Settings that exclude each other: each value is possible, the combination is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distillkit.errors import UsageError
from distillkit.settings.conditions import (
    IMPORTED,
    SERVED,
    TEACHER_IN_WHITE_BOX,
    anneals,
    has_own_loss,
    has_several_teachers,
    is_automatic,
    is_behind_server,
    is_cut,
    is_imported,
    is_served,
    is_white_box,
    needs_control,
    sparse_problem,
    teacher_writes,
)
from distillkit.settings.on_policy_conflicts import on_policy_refusal
from distillkit.settings.teacher_values import check_counts


@dataclass(frozen=True)
class Conflict:
    """A combination of settings that is refused.

    Attributes:
        settings: what excludes each other in a configuration (name to value), None where it does not occur there.
        why: the reason, to follow "exclude each other: ".
        hint: what to give instead.
    """

    settings: Callable[[Mapping[str, Any]], str | None]
    why: str
    hint: str


def _always(settings: str, holds: Callable[[Mapping[str, Any]], bool]) -> Callable[[Mapping[str, Any]], str | None]:
    return lambda values: settings if holds(values) else None


def _sparse(values: Mapping[str, Any]) -> str | None:
    problem = sparse_problem(values)
    if not is_white_box(values) or values["teacher_cache"] != "sparse" or problem is None:
        return None
    return f"--teacher-cache sparse and {problem}"


def _sparse_targets_of_another_method(values: Mapping[str, Any]) -> str | None:
    return None if anneals(values) else _sparse(values)


def _sparse_targets_of_another_temperature(values: Mapping[str, Any]) -> str | None:
    return _sparse(values) if anneals(values) else None


def _served_problem(values: Mapping[str, Any]) -> str | None:
    """What of a white-box configuration a server cannot give."""
    if values["temperature"] != 1:
        return f"--temperature {values['temperature']:g}"
    if values["alignment"] != "auto":
        return f"alignment {values['alignment']}"
    return sparse_problem(values)


def _way(values: Mapping[str, Any]) -> str:
    return IMPORTED if is_imported(values) else SERVED


def _served(settings: str, holds: Callable[[Mapping[str, Any]], bool], hint: str) -> Conflict:
    """What needs the weights of a teacher that are not here."""
    return Conflict(
        lambda values: (
            f"--teacher-model {_way(values)}… and {settings}" if is_served(values) and holds(values) else None
        ),
        "that needs the teacher's weights, which are not here",
        hint,
    )


_AGAINST_CONTROL = "--quality-gate better-than-control"

CONFLICTS = (
    Conflict(
        _always("--no-cuda and --precision fp16", lambda values: values["no_cuda"] and values["precision"] == "fp16"),
        "fp16 training needs a GPU",
        hint="use --precision auto, bf16 or fp32",
    ),
    Conflict(
        lambda values: (
            f"--parallel fsdp and --optimizer {values['optimizer']}"
            if values["parallel"] == "fsdp" and values["optimizer"] != "adamw"
            else None
        ),
        "it needs whole matrices, of which every process has some rows",
        hint="use --optimizer adamw, or --parallel ddp",
    ),
    Conflict(
        _always(
            "--parallel fsdp and --precision fp16",
            lambda values: values["parallel"] == "fsdp" and values["precision"] == "fp16",
        ),
        "the processes would have to agree on every step that fp16 skips",
        hint="use --precision bf16 or fp32, or --parallel ddp",
    ),
    Conflict(
        _always(
            "--skip-validation and --quality-gate improved",
            lambda values: values["skip_validation"] and values["quality_gate"] == "improved",
        ),
        "the gate is part of the validation",
        hint="leave one of them out",
    ),
    Conflict(
        _always(
            f"--skip-validation and {_AGAINST_CONTROL}",
            lambda values: values["skip_validation"] and needs_control(values),
        ),
        "the gate is part of the validation",
        hint="leave one of them out",
    ),
    Conflict(
        _always(
            "--skip-validation and --lm-eval",
            lambda values: values["skip_validation"] and values["lm_eval"] is not None,
        ),
        "its tasks are part of the validation",
        hint="leave one of them out",
    ),
    Conflict(
        _always(
            f"--no-control and {_AGAINST_CONTROL}",
            lambda values: values["control"] is False and needs_control(values),
        ),
        "there would be no control to be better than",
        hint="leave one of them out; a finished run gets its control by: distillkit control --run DIR",
    ),
    Conflict(
        _always(
            f"--alpha 0 and {_AGAINST_CONTROL}",
            lambda values: values["alpha"] == 0 and needs_control(values),
        ),
        "a training without the teacher is its own control",
        hint="give --alpha a value above 0, or choose another --quality-gate",
    ),
    Conflict(
        _sparse_targets_of_another_method,
        "sparse targets are true to the forward KL alone",
        hint="use --teacher-cache exact",
    ),
    Conflict(
        _sparse_targets_of_another_temperature,
        "sparse targets are drawn from the teacher's distributions at one temperature",
        hint="use --teacher-cache exact, or --temperature-schedule constant",
    ),
    Conflict(
        _always(
            "--teacher-cache off and --teacher-streaming on",
            lambda values: (
                is_white_box(values) and values["teacher_cache"] == "off" and values["teacher_streaming"] == "on"
            ),
        ),
        "what a teacher block by block computes has to be kept",
        hint="use --teacher-cache exact or sparse, or leave it at auto",
    ),
    Conflict(
        lambda values: (
            f"--teacher-devices {values['teacher_devices']} and --teacher-streaming on"
            if values["teacher_devices"] not in ("auto", "one") and values["teacher_streaming"] == "on"
            else None
        ),
        "block by block a teacher needs one device",
        hint="leave one of them out",
    ),
    Conflict(
        _always(
            "--tune-teacher and --teacher-streaming on",
            lambda values: (
                TEACHER_IN_WHITE_BOX.holds(values)
                and values["tune_teacher"] > 0
                and values["teacher_streaming"] == "on"
            ),
        ),
        "a teacher that is trained is in memory as a whole",
        hint="leave one of them out",
    ),
    Conflict(
        _always(
            "--answers above 1 and --teacher-temperature 0",
            lambda values: teacher_writes(values) and values["answers"] > 1 and values["teacher_temperature"] == 0,
        ),
        "at temperature 0 all answers to a prompt are the same",
        hint="leave one of them out",
    ),
    _served(
        "a student that is cut from it (teacher:N)", is_cut, hint="name a student with --student-model: a Hub id or a folder"
    ),
    _served(
        "--tune-teacher", lambda values: values["tune_teacher"] > 0, hint="leave --tune-teacher out, or name a local teacher"
    ),
    _served(
        "--teacher-precision int8", lambda values: values["teacher_precision"] == "int8",
        hint="leave --teacher-precision out, or name a local teacher",
    ),
    _served(
        "--teacher-streaming on", lambda values: values["teacher_streaming"] == "on",
        hint="leave --teacher-streaming out, or name a local teacher",
    ),
    _served(
        "--teacher-cache exact or off", lambda values: is_white_box(values) and values["teacher_cache"] in ("exact", "off"),
        hint="use --teacher-cache sparse, or --box-type black",
    ),
    Conflict(
        lambda values: (
            f"--teacher-model {_way(values)}…, --box-type white and {problem}"
            if is_served(values) and is_white_box(values) and values["alpha"] > 0 and (problem := _served_problem(values))
            else None
        ),
        "there are only the likeliest tokens of the teacher's own vocabulary at temperature 1",
        hint="use --temperature 1 with the forward KL, or a server's teacher with --box-type black",
    ),
    Conflict(
        _always(
            f"--teacher-model {IMPORTED}… and --box-type black",
            lambda values: is_imported(values) and values["box_type"] == "black",
        ),
        "log-probabilities write no texts",
        hint="use --box-type white",
    ),
    Conflict(
        _always(
            "--extra-teachers and --box-type black",
            lambda values: teacher_writes(values) and values["extra_teachers"] is not None,
        ),
        "several teachers are one by their probabilities; texts that they write are not mixed",
        hint="use --box-type white, or one teacher",
    ),
    Conflict(
        lambda values: (
            f"--extra-teachers and alignment {values['alignment']}" if has_several_teachers(values) and has_own_loss(values) else None
        ),
        "that alignment gives no distributions that could be mixed",
        hint="use alignment auto, bpm or strict, or one teacher",
    ),
    Conflict(
        _always(
            "--extra-teachers and --tune-teacher",
            lambda values: has_several_teachers(values) and values["tune_teacher"] > 0,
        ),
        "only a teacher that teaches alone is tuned",
        hint="tune each in a run of its own and name its teacher/tuned folder, or leave --tune-teacher out",
    ),
    _served(
        "--extra-teachers", lambda values: values["extra_teachers"] is not None,
        hint="name a local teacher, or leave --extra-teachers out",
    ),
)  # fmt: skip


def check_conflicts(values: Mapping[str, Any]) -> None:
    """Refuse a configuration whose settings exclude each other, or of which one needs another that is not given.

    Raises:
        UsageError: names the settings and what to give instead.
    """
    if is_automatic(values) and values["target_parameters"] is None:
        raise UsageError(
            f"--student-model {values['student_model']} looks for the best shape of a size, and no size is given",
            hint="add --target-parameters, such as --target-parameters 60M; or say the shape: teacher:10",
        )
    if is_behind_server(values) and values["teacher_url"] is None:
        raise UsageError(
            f"--teacher-model {values['teacher_model'][:200]} is behind a server, and no address is given",
            hint="add it: --teacher-url http://127.0.0.1:8000/v1",
        )
    check_counts(values)
    if (refusal := on_policy_refusal(values)) is not None:
        settings, why, hint = refusal
        raise UsageError(f"{settings} exclude each other: {why}", hint=hint)
    for conflict in CONFLICTS:
        settings = conflict.settings(values)
        if settings is not None:
            raise UsageError(f"{settings} exclude each other: {conflict.why}", hint=conflict.hint)
