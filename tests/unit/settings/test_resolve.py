"""The layers of settings, their validation, and where each value came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit.errors import UsageError
from distillkit.settings import declared
from distillkit.settings.resolve import Layer, resolve


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_precedence_preset_file_environment_flag(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yaml", "batch_size: 4\nmax_length: 100\nsample_size: 300\n")
    resolved = resolve(
        {"sample_size": "200"}, explicit_label="flag", preset="weak-pc", config_file=file,
        environment={"DISTILLKIT_MAX_LENGTH": "96", "DISTILLKIT_SAMPLE_SIZE": "400", "HOME": "/"},
    )  # fmt: skip
    config, sources = resolved.parameters, resolved.sources
    assert (config.no_cuda, sources["no_cuda"]) == (True, "preset weak-pc")
    assert (config.batch_size, sources["batch_size"]) == (4, "file mine.yaml")
    assert (config.max_length, sources["max_length"]) == (96, "environment")
    assert (config.sample_size, sources["sample_size"]) == (200, "flag")
    assert (config.epochs, sources["epochs"]) == (2, "default")


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"learning_rate": "5e-5"}, "learning_rate", 5e-5),
        ({"sample_size": "1000"}, "sample_size", 1000),
        ({"sample_size": 1000.0}, "sample_size", 1000),
        ({"no_cuda": "true"}, "no_cuda", True),
        ({"folder_name": 123}, "folder_name", "123"),
        ({"teacher_model_path": "none"}, "teacher_model_path", None),
        ({"held_out_size": "none"}, "held_out_size", None),
        ({"temperature": 3}, "temperature", 3.0),
    ],
)
def test_values_are_coerced(given: dict, name: str, value: object) -> None:
    assert getattr(resolve(given).parameters, name) == value


@pytest.mark.parametrize(
    "name",
    ["teacher_model", "student_model", "dataset", "teacher_model_path", "student_model_path", "dataset_path",
     "output_dir", "folder_name"],
)  # fmt: skip
def test_an_empty_path_is_no_wish_for_none(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: it is empty"):
        resolve({name: ""})
    if name in ("teacher_model_path", "student_model_path", "dataset_path", "folder_name"):
        # A variable that is set to nothing is not set.
        assert getattr(resolve(environment={f"DISTILLKIT_{name.upper()}": ""}).parameters, name) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"batch_size": 500}, ["batch_size", "500", "1–128"]),
        ({"sample_size": 99}, ["sample_size", "99", "100–50000"]),
        ({"learning_rate": 2e-3}, ["learning_rate", "0.002", "1e-6–0.001"]),
        ({"batch_size": "many"}, ["batch_size", "'many'", "whole number"]),
        ({"batch_size": 2.5}, ["batch_size", "2.5", "whole number"]),
        ({"batch_size": True}, ["batch_size", "True", "whole number"]),
        ({"dataset": False}, ["dataset", "False", "text"]),
        ({"no_cuda": 1}, ["no_cuda", "1", "true or false"]),
        ({"box_type": "blck"}, ["box_type", "did you mean 'black'"]),
        ({"temperature": -1}, ["temperature", "-1", "greater than 0"]),
        ({"temperature": float("nan")}, ["temperature", "finite"]),
        ({"learning_rate": float("inf")}, ["learning_rate", "finite"]),
        ({"epochs": 0}, ["epochs", "at least 1"]),
        ({"alpha": 0.5, "beta": 0.4}, ["alpha + beta must be 1"]),
        ({"alpha": 1.5}, ["alpha", "between 0 and 1"]),
        ({"epochs": None}, ["epochs", "whole number"]),
        ({"teacher_model": " "}, ["teacher_model", "text"]),
        ({"output_dir": "a\0b"}, ["output_dir", "NUL"]),
    ],
)
def test_bad_values_are_refused_in_one_line(given: dict, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(given)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    for word in words:
        assert word in caught.value.message


def test_out_of_range_can_be_lifted_but_not_the_impossible() -> None:
    with pytest.raises(UsageError) as caught:
        resolve({"batch_size": 500})
    assert "--allow-out-of-range" in str(caught.value.hint)
    assert resolve({"batch_size": 500, "allow_out_of_range": True}).parameters.batch_size == 500
    with pytest.raises(UsageError, match="impossible"):
        resolve({"batch_size": 0, "allow_out_of_range": True})


def test_one_weight_derives_the_other() -> None:
    resolved = resolve({"alpha": "0.6"})
    assert resolved.parameters.beta == pytest.approx(0.4)
    assert resolved.sources["beta"].startswith("derived")
    # A flag over a preset that sets both.
    resolved = resolve({"beta": 0.5}, preset="quality")
    assert resolved.parameters.alpha == pytest.approx(0.5)
    assert resolved.sources["alpha"].startswith("derived")


def test_path_and_name_conflict_only_when_given_together() -> None:
    with pytest.raises(UsageError, match="both given") as caught:
        resolve({"teacher_model": "gpt2", "teacher_model_path": "./x"})
    assert "--teacher-model-path" in str(caught.value.hint)
    with pytest.raises(UsageError, match="dataset_path"):
        resolve({"dataset": "wikitext", "dataset_path": "x.txt"})
    # A name from a higher layer replaces the path of a lower one.
    resolved = resolve({"teacher_model": "gpt2"}, base=Layer("this run", {"teacher_model_path": "./x"}))
    assert resolved.parameters.teacher_model_path is None


def test_no_cuda_conflicts_with_fp16() -> None:
    with pytest.raises(UsageError, match=r"--no-cuda and --precision fp16"):
        resolve({"no_cuda": True, "precision": "fp16"})


@pytest.mark.parametrize(
    "other",
    [{"control": False}, {"skip_validation": True}, {"alpha": 0.0}],
    ids=["--no-control", "--skip-validation", "--alpha 0"],
)
def test_a_gate_that_needs_a_control_conflicts_with_what_prevents_it(
    other: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    with pytest.raises(UsageError, match="--quality-gate better-than-control exclude each other") as caught:
        resolve({"quality_gate": "better-than-control", **other})
    assert request.node.callspec.id in caught.value.message
    resolve({"quality_gate": "better-than-control"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batchsize: 4\n", "batchsize"),
        ("batch_size: 4\nbatch_size: 8\n", "twice"),
        ("batch_size: &a 4\nepochs: *a\n", "alias"),
        ("batch_size: !!python/object/apply:os.system ['true']\n", "tag"),
        ("- 1\n- 2\n", "must map"),
        ("batch_size: [\n", "line"),
        ("5: 5\n", "must map"),
        ("? [a]\n: 1\n", "a key must be a word"),
    ],
)
def test_bad_yaml_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve(config_file=write(tmp_path / "c.yaml", text))


def test_unknown_key_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(config_file=write(tmp_path / "c.yaml", "batchsize: 4\n"))
    assert "batch_size" in str(caught.value.hint)


def test_yaml_numbers_written_as_text_are_numbers(tmp_path: Path) -> None:
    # PyYAML reads 5e-5 as text because YAML 1.1 wants a dot.
    assert resolve(config_file=write(tmp_path / "c.yaml", "learning_rate: 5e-5\n")).parameters.learning_rate == 5e-5


def test_missing_and_oversized_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        resolve(config_file=tmp_path / "none.yaml")
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * 1_000_001)
    with pytest.raises(UsageError, match="larger"):
        resolve(config_file=big)
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"epochs: \xff\n")
    with pytest.raises(UsageError, match="UTF-8"):
        resolve(config_file=binary)


def test_unknown_preset_is_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(preset="weakpc")
    assert "weak-pc" in str(caught.value.hint)


def test_unknown_variable_is_named() -> None:
    resolved = resolve(environment={"DISTILLKIT_BATCHSIZE": "4", "DISTILLKIT_CACHE": "/x"})
    assert len(resolved.notes) == 1
    assert "DISTILLKIT_BATCH_SIZE" in resolved.notes[0]


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/abs",
        "a/b",
        "a\0b",
        "CON",
        "nul.txt",
        "x" * 300,
        "-rf",
        ".hidden",
        "",
        " a",
        "a\nb",
        "latest",
        "a:b",
        "ä" * 80,
        "a.",
    ],
)
def test_bad_folder_names(name: str) -> None:
    with pytest.raises(UsageError):
        resolve({"folder_name": name} if name.strip() else {"folder_name": name or " "})


@pytest.mark.parametrize("name", ["gpt2_to_tiny_experiment_1", "опыт-1", "a.b-c_d", "x" * 150])
def test_good_folder_names(name: str) -> None:
    assert resolve({"folder_name": name}).parameters.folder_name == name


def test_the_table_for_people_shows_models_texts_and_what_differs() -> None:
    shown = resolve({"temperature": 3.0, "lr_schedule": "cosine", "epochs": 2, "dataset_path": "mine.txt"})
    rows = shown.table_rows(everything=False)
    assert rows == [
        ("teacher_model", "gpt2-xl", "default"),
        ("student_model", "arnir0/Tiny-LLM", "default"),
        ("dataset_path", "mine.txt", "argument"),
        ("temperature", 3.0, "argument"),
        ("lr_schedule", "cosine", "argument"),
    ]
    everything = shown.table_rows(everything=True)
    assert [name for name, _, _ in everything] == list(declared.fields())
    assert ("dataset", "wikitext", "not used, dataset_path wins") in everything
    assert shown.left_out(rows) == len(everything) - len(rows)
