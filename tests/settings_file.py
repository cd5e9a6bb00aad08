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


# A training on the processor, in a format whose results are compared, and nothing after it.
BARE: dict[str, Any] = {
    "precision": "fp32", "no_cuda": True, "skip_validation": True, "save_plot": False, "control": False, "install_deps": False,
    "allow_out_of_range": True,
}  # fmt: skip


def bare_settings(models: Path, output: Path, name: str, **changes: Any) -> Path:
    """The settings of the run `output/name`, as a file.

    Args:
        models: has `teacher`, `student` and `texts.txt`.
        changes: what is otherwise than in `BARE`, or besides.
    """
    values = {
        "teacher_model_path": models / "teacher", "student_model_path": models / "student",
        "dataset_path": models / "texts.txt", "output_dir": output, "folder_name": name, **BARE, **changes,
    }  # fmt: skip
    return settings_file(models, **values)
