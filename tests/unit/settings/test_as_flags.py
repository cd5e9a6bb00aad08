"""A configuration as a command line, which the command line reads back as the same configuration."""

from __future__ import annotations

from typing import Any

import pytest

from distillkit.settings import declared
from distillkit.settings.as_flags import as_flags
from distillkit.settings.presets import preset_names
from distillkit.settings.resolve import resolve


def read_back(words: list[str]) -> dict[str, Any]:
    """What the command line makes of options: names to texts or truths."""
    options = {
        flag: (name, place == 0) for name in declared.fields() for place, flag in enumerate(declared.flags(name))
    }
    given: dict[str, Any] = {}
    rest = list(words)
    while rest:
        name, positive = options[rest.pop(0)]
        given[name] = positive if declared.kind(name) is bool else rest.pop(0)
    return given


@pytest.mark.parametrize("preset", [None, *preset_names()])
def test_every_preset_as_flags(preset: str | None) -> None:
    config = resolve({}, preset=preset).as_dict()
    words = as_flags(config)
    assert words is not None
    assert preset is None or words
    assert resolve(read_back(words)).as_dict() == config


def test_unusual_values() -> None:
    given = {
        "learning_rate": 1.0000001e-5, "control": False, "skip_demo": False, "teacher_model_path": "/a b/'c'", "seed": 0,
        "system_prompt": "line\nline", "output_dir": "elsewhere", "text_column": "text",
    }  # fmt: skip
    config = resolve(given).as_dict()
    words = as_flags(config)
    assert words is not None
    assert "--output-dir" not in words
    assert resolve({**read_back(words), "output_dir": "elsewhere"}).as_dict() == config


def test_what_only_a_file_can_say() -> None:
    config = resolve({}).as_dict()
    assert as_flags({**config, "datasets": {"mine": {"dataset": "wikitext"}}}) is None
