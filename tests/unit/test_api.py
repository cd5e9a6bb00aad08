"""`distill_models()`: its signature is a promise, its errors have types, and quiet means quiet."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import distillkit
from distillkit import DistillkitError, DistillResult, PreconditionError, QualityGateError, UsageError, distill_models
from distillkit.settings import declared

# Written out here once more on purpose: what users were promised, in this order.
CORE: list[tuple[str, Any]] = [
    ("teacher_model", "gpt2-xl"),
    ("student_model", "arnir0/Tiny-LLM"),
    ("box_type", "white"),
    ("teacher_model_path", None),
    ("student_model_path", None),
    ("dataset", "wikitext"),
    ("dataset_path", None),
    ("sample_size", 1000),
    ("max_length", 256),
    ("temperature", 2.0),
    ("alpha", 0.7),
    ("beta", 0.3),
    ("epochs", 2),
    ("batch_size", 8),
    ("learning_rate", 5e-5),
    ("no_cuda", False),
    ("output_dir", "./output"),
    ("folder_name", None),
    ("checkpoint_interval", 50),
    ("save_metrics", True),
    ("save_plot", True),
    ("save_best_model", True),
    ("skip_validation", False),
    ("install_deps", True),
    ("run_tests", False),
    ("skip_demo", True),
]
CONTROL = [("preset", None), ("config", None), ("run", None), ("force", False), ("quiet", False)]
RANGES = {
    "sample_size": (100, 50_000), "max_length": (64, 4096), "temperature": (1.0, 10.0), "alpha": (0.0, 1.0),
    "beta": (0.0, 1.0), "epochs": (1, 20), "batch_size": (1, 128), "learning_rate": (1e-6, 1e-3),
    "checkpoint_interval": (1, 1000),
}  # fmt: skip


def test_the_26_parameters() -> None:
    arguments = list(inspect.signature(distill_models).parameters.values())
    assert len(CORE) == 26
    assert [(item.name, item.default) for item in arguments[:26]] == CORE
    assert [(type(item.default)) for item in arguments[:26]] == [type(default) for _, default in CORE]
    assert all(item.kind is item.KEYWORD_ONLY for item in arguments)


def test_the_advanced_ones_and_the_controls_come_after() -> None:
    arguments = [item.name for item in inspect.signature(distill_models).parameters.values()]
    advanced = [name for name in declared.fields() if declared.facts(name).group == "advanced"]
    assert advanced[:2] == ["optimizer", "weight_decay"]
    assert arguments[26:] == [*advanced, *(name for name, _ in CONTROL)]
    assert inspect.signature(distill_models).return_annotation is DistillResult


@pytest.mark.parametrize("name", [name for name, _ in CORE])
def test_documented_ranges(name: str) -> None:
    facts = declared.facts(name)
    assert (facts.low, facts.high) == RANGES.get(name, (None, None))


def test_every_argument_is_documented() -> None:
    documentation = inspect.getdoc(distill_models) or ""
    for name in inspect.signature(distill_models).parameters:
        assert f"    {name}: " in documentation


@pytest.mark.parametrize(
    ("given", "words", "hint"),
    [
        ({"temprature": 3}, "unknown parameter 'temprature'", "did you mean 'temperature'"),
        ({"teacher": "gpt2"}, "unknown parameter 'teacher'", "did you mean 'teacher_model"),
        ({"qiet": True}, "unknown parameter 'qiet'", "did you mean 'quiet'"),
        ({"zzz": 1}, "unknown parameter 'zzz'", "distillkit params"),
        ({"batch_size": 500}, "batch_size: 500 is outside its range", "--allow-out-of-range"),
        ({"batch_size": "many"}, "batch_size: 'many' is not a whole number", "params batch_size"),
        ({"epochs": 0, "allow_out_of_range": True}, "epochs: 0 is impossible", "1–20"),
        ({"alpha": 0.5, "beta": 0.6}, "alpha [+] beta must be 1", "only one of"),
        ({"preset": "quick-tets"}, "there is no preset 'quick-tets'", "did you mean 'quick-test'"),
        ({"config": "absent.yaml"}, "absent.yaml", ""),
        ({"folder_name": "../x"}, "folder_name", "--folder-name"),
        ({"teacher_model_path": "./absent"}, "absent", "check the path"),
        ({"dataset_path": "absent.txt"}, "absent.txt", ""),
        ({"run": "absent"}, "absent", "distillkit runs"),
    ],
)
def test_wrong_arguments_are_usage_errors(
    given: dict[str, Any], words: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words) as caught:
        distill_models(**given, quiet=True)
    assert caught.value.exit_code == 2
    assert hint in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == [], "nothing on disk is touched"


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        distill_models("gpt2")  # type: ignore[misc]


def test_errors_have_types_and_none_ends_the_program() -> None:
    for kind in (UsageError, PreconditionError, QualityGateError, distillkit.Interrupted):
        assert issubclass(kind, DistillkitError)
    assert issubclass(DistillkitError, Exception)
    assert not issubclass(DistillkitError, SystemExit)
    assert [kind.exit_code for kind in (DistillkitError, UsageError, PreconditionError, QualityGateError)] == [
        1,
        2,
        3,
        4,
    ]
    assert [distillkit.Interrupted(number).exit_code for number in (2, 15)] == [130, 143]


def test_result_fields() -> None:
    names = [field.name for field in dataclasses.fields(DistillResult)]
    assert names == ["run_directory", "student_path", "teacher", "before", "after", "gap_closed", "gain", "verdict", "metrics", "control", "teacher_gain", "tuned_teacher", "advice", "next_steps", "lm_eval", "teachers", "documents"]  # fmt: skip
    assert set(DistillResult(Path("x")).as_dict()) == set(names)


def test_everything_promised_is_there() -> None:
    for name in distillkit.__all__:
        assert getattr(distillkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'distil_models'"):
        _ = distillkit.distil_models  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "datasets", "matplotlib", "numpy", "pyarrow")
    program = f"import sys, distillkit, distillkit.api; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
