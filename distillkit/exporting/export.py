"""`distillkit export`: a student of a run becomes a file or folder that other programs load, checked before it has its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.console import Console, format_bytes
from distillkit.errors import UsageError
from distillkit.exporting.check import CheckResult, check_folder, check_gguf, student_score
from distillkit.exporting.chosen_student import ChosenStudent
from distillkit.exporting.gguf_file import OWN_KEY, import_gguf, plan_gguf, write_gguf
from distillkit.exporting.number_formats import GGUF_FORMATS, SAFETENSORS_FORMATS
from distillkit.exporting.plain_copy import bytes_of_copy, copy_student
from distillkit.storage import bytes_below, write_file, write_folder

FORMATS = ("gguf", "safetensors")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: a GGUF file, or a folder.
        format: of `FORMATS`.
        dtype: of the weights; None: as the student has them.
        bytes: its size.
        check: what was found when it was read back.
        notes: what a program may do otherwise than transformers, a sentence each.
    """

    path: Path
    format: str
    dtype: str | None
    bytes: int
    check: CheckResult
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "format": self.format, "dtype": self.dtype, "path": str(self.path), "bytes": self.bytes,
            "check": self.check.as_dict(), "notes": list(self.notes),
        }  # fmt: skip


def checked_format(form: str, dtype: str | None) -> str | None:
    """The number format of an export: as given, fp16 for GGUF where none is.

    Raises:
        UsageError: there is no such format.
    """
    if form not in FORMATS:
        raise UsageError(f"--format: {form!r} is not known", hint=f"one of: {', '.join(FORMATS)}")
    known = GGUF_FORMATS if form == "gguf" else SAFETENSORS_FORMATS
    dtype = dtype.lower() if dtype is not None else ("f16" if form == "gguf" else None)
    if dtype is not None and dtype not in known:
        hint = f"one of: {', '.join(known)}"
        if form == "gguf" and dtype[:1] in ("q", "i"):
            hint += "; llama.cpp's llama-quantize makes the others from a file in f16"
        raise UsageError(f"--dtype: {dtype!r} is not one of {form}'s number formats here", hint=hint)
    return dtype


def export(
    student: ChosenStudent, form: str, dtype: str | None, out: Path | None, console: Console, *, overwrite: bool = False
) -> Exported:
    """Write a student.

    Args:
        form: of `FORMATS`.
        dtype: as `checked_format` gives it.
        out: a GGUF file, or a folder; None: in `export/` of the run.
        overwrite: whether `out` may be replaced though it is no GGUF file of this program.

    Raises:
        UsageError: `out` is there already.
        PreconditionError: the student cannot be written in this form, or what was written is not the student; nothing is left.
        DistillkitError: it cannot be written; what was there is as it was.
        Interrupted: a signal arrived; likewise.
    """
    target = _target(student, form, dtype, out, overwrite)
    texts = student.check_texts()
    found: list[CheckResult] = []
    if form == "gguf":
        shape = GGUF_FORMATS[str(dtype)]
        plan = plan_gguf(student, shape)
        expected = student_score(student, texts.scored, console)

        def write(path: Path) -> None:
            write_gguf(path, plan, console)
            console.info("reading it back")
            found.append(check_gguf(path, student, texts.scored, texts.texts, expected, shape.tolerance))

        write_file(target, write, plan.bytes)
        notes = list(plan.vocabulary.notes)
        if plan.unblocked:
            notes.append(f"{plan.unblocked} matrices stay in fp16: their rows are no multiple of 32 numbers")
        return Exported(target, form, dtype, target.stat().st_size, found[0], tuple(notes))
    tolerance = GGUF_FORMATS[dtype or "f32"].tolerance
    expected = student_score(student, texts.scored, console)

    def fill(folder: Path) -> None:
        copy_student(folder, student, dtype, console)
        console.info("reading it back")
        found.append(check_folder(folder, student, texts.scored, expected, tolerance, console))

    write_folder(target, fill, bytes_of_copy(student, dtype))
    return Exported(target, form, dtype, bytes_below(target), found[0])


def _target(student: ChosenStudent, form: str, dtype: str | None, out: Path | None, overwrite: bool) -> Path:
    """Where the export goes.

    Raises:
        UsageError: something else lies there, or it cannot lie there.
    """
    if out is None:
        name = default_name(student, dtype)
        return student.run.exports / (f"{name}.gguf" if form == "gguf" else name)
    run, place = student.run.path.resolve(), out.resolve()
    if place.is_relative_to(run) and not place.is_relative_to(run / student.run.exports.name):
        raise UsageError(
            f"--out: {out} lies in the run directory, whose files the run replaces",
            hint=f"leave --out out for a place in {student.run.exports}, or name one elsewhere",
        )
    if run.is_relative_to(place):
        raise UsageError(f"--out: {out} holds the run directory", hint="name another place")
    if form == "gguf":
        if out.suffix.lower() != ".gguf":
            raise UsageError(f"--out: {out} does not end in .gguf", hint=f"--out {out}.gguf")
        if out.is_dir():
            raise UsageError(f"--out: {out} is a folder", hint="name a file that ends in .gguf")
        if out.exists() and not overwrite and not is_own_gguf(out):
            raise _there_already(out)
    elif out.is_file():
        raise UsageError(f"--out: {out} is a file", hint="name a folder")
    elif out.is_dir() and any(out.iterdir()) and not overwrite:
        raise _there_already(out)
    return out


def default_name(student: ChosenStudent, dtype: str | None) -> str:
    """The name of an export that is given none, without the ending of a file."""
    return "-".join(filter(None, (student.run.path.resolve().name, student.which, dtype)))


def _there_already(out: Path) -> UsageError:
    return UsageError(
        f"--out: {out} is there already", hint="name another place, or let it be replaced as a whole with --overwrite"
    )


def is_own_gguf(path: Path) -> bool:
    """Whether a file is a GGUF file that this program wrote."""
    try:
        return import_gguf().GGUFReader(path).get_field(OWN_KEY) is not None
    except (OSError, ValueError, KeyError, IndexError, UnicodeDecodeError):
        return False


def described(exported: Exported) -> str:
    """One line on what was written and what was found."""
    check = exported.check
    change = (check.exported / check.student - 1) if check.student else 0.0
    tokens = "" if check.same_tokens is None else f", the same tokens on {check.same_tokens}"
    return (
        f"{format_bytes(exported.bytes)}; read back, {check.exported:.4f} bits per byte on {check.texts} held-out texts "
        f"(student {check.student:.4f}, {change:+.2%}; allowed ±{check.tolerance:.2%}){tokens}"
    )
