"""Settings as a file for `--config`: every subcommand that begins a run takes all parameters that way."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from distillkit.settings.strict_yaml import dump_yaml


def settings_file(folder: Path, **values: Any) -> Path:
    """A YAML file of `values` in `folder`, named after them."""
    content = dump_yaml({name: str(value) if isinstance(value, Path) else value for name, value in values.items()})
    path = folder / f"settings-{hashlib.sha256(content.encode()).hexdigest()[:16]}.yaml"
    path.write_text(content, encoding="utf-8")
    return path
