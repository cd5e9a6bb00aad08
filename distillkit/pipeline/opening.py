"""Which run a call is about: an existing one, or the folder of a new one; and the command that continues it."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from distillkit.errors import DistillkitError, PreconditionError, UsageError
from distillkit.run.directory import LATEST, RunDirectory, check_free, find_run
from distillkit.run.source_paths import THIS_RUN
from distillkit.settings.paths import check_folder_name, new_folder_name, user_path
from distillkit.settings.resolve import Layer, ResolvedConfig
from distillkit.stages import STAGES
from distillkit.storage import nearest_existing


def continue_command(run: RunDirectory | Path, stage: str | None = None) -> str:
    """The shell command that continues a run: the whole of it, or one stage."""
    path = run.path if isinstance(run, RunDirectory) else run
    return f"distillkit {stage or 'distill'} --run {shlex.quote(str(path))}"


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
    check_place(folder)
    if (folder / "manifest.json").exists():
        run = RunDirectory.open(folder)
        run.complete_creation()
        return run
    return RunDirectory.create(folder, resolved)


def check_place(folder: Path) -> None:
    """Refuse a folder that a run cannot lie in.

    Raises:
        UsageError: it, or one above it, is a file.
        PreconditionError: it is a link that leads elsewhere, or something else lies there.
        DistillkitError: this user may write nothing there, or the disk is read-only.
    """
    if folder.is_symlink() or (folder.parent.exists() and not _is_inside(folder, folder.parent)):
        raise PreconditionError(
            f"{folder} is a link that leads elsewhere", hint="choose another --folder-name", exit_code=2
        )
    existing = nearest_existing(folder)
    if existing.exists() and not existing.is_dir():
        raise UsageError(f"{existing} is a file, so no run can lie in it", hint="choose another --output-dir")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise DistillkitError(
            f"cannot write {folder}: {existing} may not be written to",
            hint="check the folder's permissions, or choose another --output-dir",
        )
    if not (folder / "manifest.json").exists():
        check_free(folder)


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
