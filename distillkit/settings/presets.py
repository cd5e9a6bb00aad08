"""Presets: named YAML files of parameter values, found beside the source tree or inside the installed package."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from distillkit.errors import UsageError
from distillkit.settings.strict_yaml import read_yaml_mapping

_PACKAGE = Path(__file__).resolve().parents[1]


def presets_folder() -> Path:
    """`presets/` of a source checkout, else the copy that the wheel carries."""
    packaged = _PACKAGE / "_presets"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "presets"


def preset_names() -> list[str]:
    """The names that `--preset` takes, in alphabetical order."""
    return sorted(path.stem for path in presets_folder().glob("*.yaml"))


def preset_path(name: str) -> Path:
    """The file of a preset.

    Raises:
        UsageError: there is no preset of that name.
    """
    names = preset_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"there is no preset {name!r}", hint=f"{guess}presets: {', '.join(names)}")
    return presets_folder() / f"{name}.yaml"


def read_preset(name: str) -> dict[str, Any]:
    """The values that a preset sets, not yet validated."""
    return read_yaml_mapping(preset_path(name), "preset")


def describe_preset(name: str) -> str:
    """The first comment line of a preset: what it is for."""
    for line in preset_path(name).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            return line.lstrip("# ").strip()
    return ""
