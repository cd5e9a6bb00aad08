"""What `export` and `push` do: from what was given to a run, and out of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distillkit.cli.request import check_surroundings, continuing
from distillkit.console import Console
from distillkit.durability import weaknesses_reported
from distillkit.errors import UsageError
from distillkit.interrupts import graceful_signals
from distillkit.run.directory import LATEST, RunDirectory, find_run
from distillkit.settings.paths import user_path

_STUDENTS = ("best", "final")


@dataclass(frozen=True)
class ExportRequest:
    """What was given to `export`."""

    run: str | None
    output_dir: str
    form: str
    dtype: str | None
    which: str | None
    out: str | None
    overwrite: bool

    @property
    def command(self) -> str:
        """The subcommand with what was given but the run, for the line that says how to do it again."""
        given = {"--format": self.form, "--dtype": self.dtype, "--which": self.which, "--out": self.out}
        return _command(["export"], given, ["--overwrite"] * self.overwrite)


def run_export(request: ExportRequest, console: Console) -> None:
    """`distillkit export`.

    Raises:
        DistillkitError: as `distillkit.exporting.export.export`.
    """
    from distillkit.exporting.chosen_student import choose_student
    from distillkit.exporting.export import checked_format, described, export
    from distillkit.reporting.write import refresh_report

    check_surroundings(console)
    form = request.form.lower()
    dtype = checked_format(form, request.dtype)
    which = _checked_which(request.which)
    run = _found_run(request.run, request.output_dir, console)
    out = None if request.out is None else user_path(request.out, "--out")
    with graceful_signals(), weaknesses_reported(console.warn), continuing(run, request.command), run.locked():
        student = choose_student(run, which, console)
        exported = export(student, form, dtype, out, console, overwrite=request.overwrite)
        refresh_report(run)
    for note in exported.notes:
        console.info(note)
    console.info(described(exported))
    console.data(f"exported: {exported.path}")
    console.json(
        {"command": "export", "status": "complete", "run": str(run.path), "which": student.which, **exported.as_dict()}
    )


@dataclass(frozen=True)
class PushRequest:
    """What was given to `push`."""

    run: str | None
    output_dir: str
    repository: str
    which: str | None
    ggufs: tuple[str, ...]
    public: bool
    overwrite: bool

    @property
    def command(self) -> str:
        """As `ExportRequest.command`."""
        ggufs = [word for name in self.ggufs for word in ("--gguf", name)]
        flags = ["--public"] * self.public + ["--overwrite"] * self.overwrite
        return _command(["push", self.repository, *ggufs], {"--which": self.which}, flags)


def run_push(request: PushRequest, console: Console) -> None:
    """`distillkit push`. A signal ends it at once: until its one commit is made, the repository is as it was.

    Raises:
        DistillkitError: as `distillkit.exporting.push.push`.
    """
    from distillkit.exporting.chosen_student import choose_student
    from distillkit.exporting.push import check_repository_id, gguf_files, push

    check_surroundings(console)
    check_repository_id(request.repository)
    which = _checked_which(request.which)
    run = _found_run(request.run, request.output_dir, console)
    with continuing(run, request.command), run.locked():
        student = choose_student(run, which, console)
        ggufs = gguf_files(student, request.ggufs)
        if run.record("validate") is None:
            console.warn("this student was not measured on held-out texts, and its card says so: distillkit validate")
        pushed = push(student, request.repository, ggufs, console, public=request.public, overwrite=request.overwrite)
    for path in pushed.left:
        console.warn(f"the repository still holds {path} of an earlier push")
    console.data(f"pushed: {pushed.url} ({'private' if pushed.private else 'public'})")
    console.json(
        {"command": "push", "status": "complete", "run": str(run.path), "which": student.which, **pushed.as_dict()}
    )


def _command(words: Sequence[str], options: Mapping[str, str | None], flags: Sequence[str]) -> str:
    given = [word for flag, value in options.items() if value is not None for word in (flag, value)]
    return shlex.join([*words, *given, *flags])


def _found_run(run: str | None, output_dir: str, console: Console) -> RunDirectory:
    found = find_run(None if run == LATEST else run, user_path(output_dir, "--output-dir"))
    console.info(f"run directory: {found.path}")
    return found


def _checked_which(which: str | None) -> str | None:
    if which is not None and which not in _STUDENTS:
        raise UsageError(f"--which: {which!r} is not known", hint=f"one of: {', '.join(_STUDENTS)}")
    return which
