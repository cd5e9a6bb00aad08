"""Tasks of lm-evaluation-harness: whether the library is here, whether they are known, what they are made of.

https://github.com/EleutherAI/lm-evaluation-harness; a local task is a YAML file as its documentation describes it.
"""

from __future__ import annotations

import copy
import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distillkit.console import Console
from distillkit.errors import UsageError, first_line
from distillkit.harness.quiet import quiet_harness
from distillkit.installing import is_satisfied, provide
from distillkit.settings.conditions import is_served
from distillkit.settings.harness_values import is_task_file, task_names
from distillkit.settings.parameters import Parameters
from distillkit.storage import fingerprint_of, sha256_of

# That of the extra `lm-eval`.
REQUIREMENT = "lm_eval>=0.4.13,<0.5"
_NEAR = 4


def provide_harness(config: Parameters, console: Console) -> None:
    """Have the library, and know every task that the configuration names; nothing where it names none.

    Raises:
        PreconditionError: the library is missing and may not or cannot be installed.
        UsageError: a task is unknown, or its file cannot be used.
    """
    if config.lm_eval is None:
        return
    names = task_names(config.lm_eval)
    _check_files_exist(names)  # Before anything is installed for them.
    provide([REQUIREMENT], "--lm-eval", console, allowed=config.install_deps)
    check_tasks(names)


def tasks_words(config: Parameters) -> str:
    """For the plan: which tasks, on which models, and what becomes of a library that is missing."""
    names = task_names(config.lm_eval or "")
    models = ["before", "after", "control where there is one", *([] if is_served(vars(config)) else ["teacher"])]
    words = f"{', '.join(names)}; on {', '.join(models)}; how long they take is not known before"
    if is_satisfied(REQUIREMENT):
        try:
            check_tasks(names)
        except UsageError as error:
            return f"the run would be refused: {error.message}; {error.hint}"
        return words
    what = "it will be installed" if config.install_deps else f"the run would be refused; pip install '{REQUIREMENT}'"
    return f"{words}; lm_eval is not installed: {what}"


def check_tasks(names: Sequence[str]) -> None:
    """Know every task, without loading its data.

    Raises:
        UsageError: a task is unknown, or its file cannot be used.
    """
    _check_files_exist(names)
    for name in names:
        if is_task_file(name):
            _read_task_file(name)
    named = [name for name in names if not is_task_file(name)]
    if not named:
        return
    known = task_manager(True).all_tasks
    for name in named:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=_NEAR, cutoff=0.6)
            guess = f"did you mean {', '.join(near)}?" if near else "list the names: lm-eval ls tasks"
            raise UsageError(f"lm_eval: {name[:200]!r} is no task of lm-evaluation-harness", hint=guess)


def task_specs(names: Sequence[str]) -> list[str | dict[str, Any]]:
    """What the harness takes for them: names as they are, files as their content.

    Data files of a task file that are named relatively and are not in the current folder are taken from beside it.

    Raises:
        UsageError: a file cannot be used.
    """
    return [_read_task_file(name) if is_task_file(name) else name for name in names]


@functools.cache
def task_manager(with_built_in: bool) -> Any:
    """The harness's index of tasks; reading its own takes some seconds, and task files need none of them."""
    with quiet_harness():
        from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

        return TaskManager(include_defaults=with_built_in)


def tasks_fingerprint(value: str) -> str:
    """What the results of `lm_eval` depend on besides its text: the content of task files and of their data files.

    A file that is not there counts as missing; the stage says so.
    """
    parts: list[Any] = [value]
    for name in filter(is_task_file, task_names(value)):
        path = Path(name).expanduser()
        if not path.is_file():
            parts.append([name, "missing"])
            continue
        parts.append([name, sha256_of(path)])
        if is_satisfied(REQUIREMENT):
            content = _read_task_file(name)
            parts += [[data, sha256_of(Path(data))] for data in _local_data(content) if Path(data).is_file()]
    return fingerprint_of(parts)


def _check_files_exist(names: Sequence[str]) -> None:
    for name in filter(is_task_file, names):
        if not Path(name).expanduser().is_file():
            raise UsageError(
                f"lm_eval: there is no file {name}", hint="give the path of a task's YAML file, or the name of a task"
            )


def _read_task_file(name: str) -> dict[str, Any]:
    path = Path(name).expanduser().resolve()
    try:
        with quiet_harness():
            from lm_eval.tasks._yaml_loader import load_yaml  # pyright: ignore[reportMissingImports]

            content = copy.deepcopy(load_yaml(path))
    except Exception as error:
        # Anything: a task file may name Python functions, which are imported.
        raise UsageError(
            f"lm_eval: {name} cannot be read: {first_line(error)}",
            hint="mend the file; see lm-evaluation-harness's task guide",
        ) from error
    if not isinstance(content.get("task"), str):
        raise UsageError(f"lm_eval: {name} describes no task: it has no name under 'task'", hint="add it: task: mine")
    arguments = content.get("dataset_kwargs")
    if isinstance(arguments, dict) and "data_files" in arguments:
        content["dataset_kwargs"] = {**arguments, "data_files": _found(arguments["data_files"], path.parent)}
    return content


def _found(files: Any, folder: Path) -> Any:
    """`data_files` of a task, with full paths where a file is there."""
    if isinstance(files, str):
        here = next((path for path in (Path(files), folder / files) if path.is_file()), None)
        return files if here is None else str(here.resolve())
    if isinstance(files, Mapping):
        return {split: _found(some, folder) for split, some in files.items()}
    return [_found(one, folder) for one in files] if isinstance(files, list) else files


def _local_data(content: Mapping[str, Any]) -> Iterator[str]:
    def flat(files: Any) -> Iterator[str]:
        if isinstance(files, str):
            yield files
        elif isinstance(files, Mapping):
            for some in files.values():
                yield from flat(some)
        elif isinstance(files, list):
            for one in files:
                yield from flat(one)

    arguments = content.get("dataset_kwargs")
    yield from flat(arguments.get("data_files") if isinstance(arguments, Mapping) else None)
