"""Where the models and texts of a run lie: full paths, so that a run can be continued from any folder, and what to do when
something has moved."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.errors import DistillkitError, UsageError
from distillkit.models.references import parse_reference, parse_student_reference, parse_teacher_reference
from distillkit.run.directory import RunDirectory
from distillkit.settings import declared
from distillkit.settings.conditions import IMPORTED
from distillkit.settings.data_values import mix_sources
from distillkit.settings.harness_values import is_task_file, task_names
from distillkit.settings.parameters import Parameters
from distillkit.settings.resolve import ResolvedConfig
from distillkit.settings.teacher_values import extra_names

THIS_RUN = "this run"
# Parameter -> what it is the place of.
_ROLES = {
    "teacher_model": "teacher", "teacher_model_path": "teacher", "student_model": "student",
    "student_model_path": "student", "dataset": "data", "dataset_path": "data",
}  # fmt: skip
_LOCAL_KINDS = ("folder", "gguf")


def with_full_paths(resolved: ResolvedConfig) -> ResolvedConfig:
    """The configuration with the full paths of the models and texts that were given now and are there.

    A path that is not there is left as it is, for the message; and so is one that an older run recorded, which cannot be
    known to mean the same here.
    """
    config = resolved.parameters
    full: dict[str, str] = {}
    for name, value in _places(config).items():
        if resolved.sources[name] == THIS_RUN:
            continue
        path = _full_path(value, name)
        if path is not None:
            full[name] = path
    if config.mix is not None and resolved.sources["mix"] != THIS_RUN:
        full["mix"] = _mix_with_full_paths(config)
    if config.extra_teachers is not None and resolved.sources["extra_teachers"] != THIS_RUN:
        full["extra_teachers"] = ",".join(_full_teacher(name) for name in extra_names(config.extra_teachers))
    if config.teacher_model_path is None and config.teacher_model.startswith(IMPORTED):
        folder = _full_path(config.teacher_model.removeprefix(IMPORTED), "teacher_model")
        if folder is not None and resolved.sources["teacher_model"] != THIS_RUN:
            full["teacher_model"] = IMPORTED + folder
    if config.lm_eval is not None and resolved.sources["lm_eval"] != THIS_RUN:
        full["lm_eval"] = ",".join(
            os.path.abspath(os.path.expanduser(name)) if is_task_file(name) else name  # noqa: PTH100, PTH111
            for name in task_names(config.lm_eval)
        )
    return dataclasses.replace(resolved, parameters=dataclasses.replace(config, **full)) if full else resolved


def _full_teacher(name: str) -> str:
    """A further teacher with its full path, where it is a place on this machine."""
    with contextlib.suppress(UsageError):
        if parse_reference(name, role="extra").kind in (*_LOCAL_KINDS, "adapter"):
            return _full_path(name, "teacher_model_path") or name
    return name


def _mix_with_full_paths(config: Parameters) -> str:
    from distillkit.data.sources import source_configs

    weights = mix_sources(config.mix or "").values()
    names = [
        _full_path(own.dataset, "dataset") or own.dataset if _local_texts(own) is not None else own.dataset
        for own in source_configs(config)
    ]
    return ",".join(f"{name}:{weight}" for name, weight in zip(names, weights, strict=True))


def _full_path(value: str, name: str) -> str | None:
    """The full path of a parameter's value; None where nothing is there."""
    with contextlib.suppress(OSError):  # The current folder may have been deleted.
        path = os.path.abspath(os.path.expanduser(value))  # noqa: PTH100, PTH111 - does not raise on odd names
        # Textually "link/.." is not where the system goes.
        path = os.path.realpath(path) if ".." in Path(value).parts else path
        if _is_there(path, name):
            return path
    return None


def _places(config: Parameters) -> dict[str, str]:
    """The parameters that name a place on this machine, those left out that another one wins over."""
    places: dict[str, str] = {}
    replacements = declared.replacements()
    for name in _ROLES:
        value = getattr(config, name)
        if value is None or getattr(config, replacements.get(name, ""), None) is not None or "\0" in value:
            continue
        if name in ("dataset", "dataset_path"):
            is_place = _local_texts(config) is not None
        else:
            is_place = name not in replacements
            with contextlib.suppress(UsageError):
                is_place = is_place or parse_reference(value).kind in _LOCAL_KINDS
        if is_place:
            places[name] = value
    return places


def _local_texts(config: Parameters) -> str | None:
    # The reader of texts brings libraries that not every command needs.
    from distillkit.data.sources import local_path

    return local_path(config)


def _is_there(path: str, name: str) -> bool:
    # Unlike Path.exists, this does not raise on a name that is too long. `FOLDER:CONFIG` names a folder of texts.
    folder, mark, _ = path.rpartition(":")
    return os.path.exists(path) or (_ROLES[name] == "data" and bool(mark) and os.path.isdir(folder))  # noqa: PTH110, PTH112


def gone_sources(config: Parameters) -> dict[str, str]:
    """The places that are not there any more, by parameter."""
    return {
        name: value
        for name, value in _places(config).items()
        if not _is_there(os.path.expanduser(value), name)  # noqa: PTH111
    }


@contextlib.contextmanager
def explaining_moved_sources(resolved: ResolvedConfig, run: RunDirectory | None) -> Iterator[None]:
    """Say of a run whose models or texts are not where they were which they are, and how to go on.

    Raises:
        UsageError: the block raised one, and something is gone that the run was made from.
    """
    try:
        yield
    except DistillkitError as error:
        gone = {
            name: value
            for name, value in gone_sources(resolved.parameters).items()
            if resolved.sources[name] == THIS_RUN
        }
        if run is None or not gone or not isinstance(error, UsageError):
            raise
        name, value = next(iter(gone.items()))
        # A later one has been replaced by its path; the flag of the path says better what is wanted.
        flag = declared.spelled(declared.replacements().get(name, name))
        relative = "" if Path(value).expanduser().is_absolute() else ", seen from the folder in which the run was made"
        raise UsageError(
            f"{run.path} was made from {value} ({name}){relative}; it is not there",
            hint=f"put it back, or say where the same is now: distillkit distill --run {shlex.quote(str(run.path))} {flag} …",
        ) from error


def same_source(name: str, config: Parameters, run: RunDirectory) -> bool:
    """Whether a parameter names only another place of what the run was made from: same files, same content.

    Args:
        name: a parameter whose value differs from the recorded one.
        config: the new configuration.
    """
    if name == "extra_teachers":
        return _same_teachers(config, run)
    role = _ROLES.get(name)
    if role is None:
        return False
    try:
        if role == "data":
            from distillkit.data.sources import source_fingerprint

            record = run.record("prepare-data")
            recorded = {
                key: value for key, value in (record.inputs if record else {}).items() if key.startswith("data ")
            }
            current = {f"data {key}": value for key, value in source_fingerprint(config, run.path.parent).items()}
            return bool(recorded) and _local_texts(config) is not None and current == recorded
        recorded_model: Any = run.manifest.models.get(role)
        reference = parse_teacher_reference(config) if role == "teacher" else parse_student_reference(config)
        if reference.kind not in _LOCAL_KINDS or not isinstance(recorded_model, Mapping):
            return False
        from distillkit.models.locating import locate

        located = locate(reference, Console(quiet=True), trust_remote_code=config.trust_remote_code)
        return located.fingerprint() == recorded_model.get("fingerprint")
    except (DistillkitError, OSError):
        return False


def _same_teachers(config: Parameters, run: RunDirectory) -> bool:
    """Whether the further teachers are, file by file, those that the data were prepared for."""
    from distillkit.run.further_teachers import KEY, locate_further

    recorded: Any = run.manifest.models.get(KEY) or []
    try:
        found = locate_further(config, Console(quiet=True))
        return bool(recorded) and [model.fingerprint() for model in found] == [
            model["fingerprint"] for model in recorded
        ]
    except (DistillkitError, OSError, KeyError, TypeError):
        return False
