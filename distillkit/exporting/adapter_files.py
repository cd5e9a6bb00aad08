"""A student that was kept as an adapter, as files for the Hub: the adapter and, where the Hub has it not, the model that it is for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.exporting.chosen_student import ChosenStudent
from distillkit.models.adapters import BASE, read_adapter
from distillkit.models.model_files import weight_files
from distillkit.models.plain_folder import ADAPTER_CONFIG
from distillkit.models.student_files import kept_files, without_this_machine
from distillkit.storage import files_below, read_json


@dataclass(frozen=True)
class AdapterFiles:
    """What goes to the Hub.

    Attributes:
        files: by their paths in the repository; of what is written anew the content.
        base: the folder in the repository that holds the model which the adapter is for; None where the Hub has that model.
    """

    files: dict[str, Path | bytes]
    base: str | None


def adapter_files(student: ChosenStudent) -> AdapterFiles:
    """The files of a kept adapter. No path of this machine is in them.

    Args:
        student: `is_adapter`.

    Raises:
        PreconditionError: the model that it is for is not there any more.
        OSError, ValueError: a file cannot be read.
    """
    folder = student.written
    files: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in files_below(folder)}
    reference = read_adapter(folder).base
    if reference.kind == "hub":
        return AdapterFiles(files, None)
    config = read_json(folder / ADAPTER_CONFIG)
    # As this program reads it: relative to the adapter. No other program is told of a folder in a repository.
    config |= {"base_model_name_or_path": f"./{BASE}", "revision": None}
    files[ADAPTER_CONFIG] = _as_bytes(config)
    place = reference.path
    if place is not None and not place.resolve().is_relative_to(folder.resolve()):
        own = [*weight_files(place), place / "config.json", *(place / name for name in kept_files(place))]
        index = place / "model.safetensors.index.json"
        own += [index] if index.is_file() and not (place / "model.safetensors").is_file() else []
        files |= {f"{BASE}/{path.relative_to(place).as_posix()}": _published(path) for path in own}
    return AdapterFiles(files, BASE)


def _published(path: Path) -> Path | bytes:
    """A file of the base; of its settings, what names no path of this machine."""
    if path.name not in ("config.json", "tokenizer_config.json"):
        return path
    content = read_json(path)
    kept = without_this_machine(content)
    return path if kept == content else _as_bytes(kept)


def _as_bytes(content: Any) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
