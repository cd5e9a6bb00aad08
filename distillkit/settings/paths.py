"""Names of run folders: what may be one, and a descriptive, unique one where the user gives none."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import datetime
from pathlib import Path

from pathvalidate import ValidationError, validate_filename

from distillkit.errors import UsageError
from distillkit.registry import DATA_FORMATS

MAX_LENGTH = 150


def check_folder_name(name: str) -> str:
    """`name` if it can be a folder inside the output directory on every system.

    Raises:
        UsageError: it is empty, too long, reserved, leads elsewhere, or would be read as a flag.
    """
    shown = repr(name if len(name) <= 60 else name[:57] + "…")
    hint = "use letters, digits, '.', '_' and '-', for example --folder-name gpt2_to_tiny_experiment_1"
    if name.startswith("-"):
        raise UsageError(f"folder_name: {shown} begins with '-'", hint=hint)
    if name.startswith(".") or name == "latest":
        raise UsageError(f"folder_name: {shown} is reserved", hint=hint)
    if len(name.encode("utf-8", "surrogatepass")) > MAX_LENGTH:
        raise UsageError(f"folder_name: longer than {MAX_LENGTH} bytes", hint=hint)
    if name != name.strip() or any(ord(character) < 32 for character in name):
        raise UsageError(f"folder_name: {shown} has white space at its ends or control characters", hint=hint)
    try:
        name.encode("utf-8")
        validate_filename(name, platform="universal")
    except (ValidationError, UnicodeEncodeError) as error:
        unusable = "some systems forbid its characters, or reserve it"
        reason = unusable if isinstance(error, ValidationError) else "it is not valid text"
        raise UsageError(f"folder_name: {shown} cannot be a folder name: {reason}", hint=hint) from error
    return name


def user_path(text: str, what: str) -> Path:
    """`text` as a path, `~` expanded; whether anything is there does not matter.

    Raises:
        UsageError: it is empty, or the system cannot even be asked: a name that is too long or not text, an unknown
            user's home.
    """
    if not text:
        raise UsageError(f"{what}: the path is empty", hint="leave it out, or give a path")
    if "\0" in text:
        raise UsageError(f"{what}: a path cannot contain a NUL character", hint="check the path")
    try:
        path = Path(text).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.lstat(path)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        shown = repr(text if len(text) <= 60 else text[:57] + "…")
        raise UsageError(f"{what}: {shown} is no path: {reason}", hint="check the path") from error
    return path


def short_reference(reference: str) -> str:
    """The last, telling part of a model or data reference, as part of a name."""
    tail = re.split(r"[/\\]", reference.split("#")[0].rstrip("/\\"))[-1]
    suffixes = "|".join(re.escape(suffix) for suffix in (".gguf", *DATA_FORMATS))
    tail = re.sub(rf"({suffixes})?(\.(gz|bz2|xz|zst|zip))?$", "", tail, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9.]+", "-", tail).strip("-.")[:32] or "model"


def new_folder_name(output_dir: Path, teacher: str, student: str, box_type: str, dataset: str) -> str:
    """A name that says what the run is and that does not exist yet in `output_dir`."""
    student_part = re.sub(r"^teacher:", "teacher-layers-", student)
    moment = datetime.now().strftime("%Y%m%d-%H%M%S")
    base = (
        f"{short_reference(teacher)}_to_{short_reference(student_part)}_{box_type}_{short_reference(dataset)}_{moment}"
    )
    name, number = base, 1
    while (output_dir / name).exists():
        number += 1
        name = f"{base}-{number}"
    return name
