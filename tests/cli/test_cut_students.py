"""Runs whose student is cut from the teacher: what prepare-data leaves, what later stages take, and older runs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer

from distillkit import PreconditionError, UsageError
from distillkit.console import Console
from distillkit.dry_run import microbenchmarks
from distillkit.dry_run.inputs import find_models
from distillkit.dry_run.plan import estimate_run
from distillkit.models.loading import load_model
from distillkit.models.locating import locate
from distillkit.models.pruning import evenly_spaced, keep_layers
from distillkit.models.references import parse_reference
from distillkit.pipeline.due import needs_run, require_earlier_stages, stage_inputs
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import open_pair
from distillkit.run.student_size import student_size
from distillkit.settings.parameters import Parameters
from distillkit.storage import files_below

Distil = Callable[..., Any]
QUIET = Console(quiet=True)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = tiny_tokenizer()
    made: Any = tiny_model("gpt2", len(tokenizer), seed=1, eos_token_id=0, layers=5, hidden=32)
    with torch.no_grad():
        made.transformer.wte.weight.mul_(6)
        for number, block in enumerate(made.transformer.h):
            for projection in (block.attn.c_proj, block.mlp.c_proj):
                projection.weight.mul_(3 + 2 * number)
    return save_model_folder(tmp_path_factory.mktemp("deep") / "teacher", made, tokenizer)


@pytest.fixture(scope="module")
def trained(distil: Distil, teacher: Path) -> Any:
    return distil(teacher_model_path=teacher, student_model="teacher:3", skip_validation=False, quality_gate="off")


def pair_of(run: Path) -> Any:
    opened = RunDirectory.open(run)
    return open_pair(Parameters(**opened.manifest.config), opened, QUIET)


def test_what_prepare_data_leaves(trained: Any, teacher: Path) -> None:
    run = trained.run_directory
    cut, models = read(run / "data" / "cut.json"), read(run / "data" / "models.json")
    assert cut["way"] == cut["asked"] == "greedy"
    assert len(cut["influence"]) == cut["layers"] == 5
    assert {one["layer"] for one in cut["removed"]} == set(range(5)) - set(cut["kept"])
    assert models["student"]["layers"] == cut["kept"]
    assert models["student"]["start"] == "start"
    assert "seconds" not in cut
    outputs = {output["path"] for output in read(run / "manifest.json")["stages"]["prepare-data"]["outputs"]}
    assert {"data/cut.json", "data/start/config.json", "data/start/model.safetensors"} <= outputs
    # The start is a model folder like any other.
    start = load_model(locate(parse_reference(str(run / "data" / "start")), QUIET), dtype=torch.float32, console=QUIET)
    assert all(weights.dtype == torch.float32 for weights in start.parameters())
    pair = pair_of(run)
    student = pair.load_student(QUIET).state_dict()
    assert all(torch.equal(value, student[name]) for name, value in start.state_dict().items())
    assert student_size(pair).parameters == sum(weights.numel() for weights in start.parameters())


def test_the_same_start_from_the_same_texts(trained: Any, distil: Distil, teacher: Path) -> None:
    again = distil(teacher_model_path=teacher, student_model="teacher:3")
    files = [
        {path.relative_to(run.run_directory): path.read_bytes() for path in files_below(run.run_directory / "data")}
        for run in (trained, again)
    ]
    assert files[0].keys() == files[1].keys()
    for name, content in files[0].items():
        if name.suffix != ".arrow" and name.name not in ("state.json", "dataset_info.json"):
            assert content == files[1][name], name
    one, other = (load_file(run.student_path / "model.safetensors") for run in (trained, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_of_an_older_version_keeps_its_even_layers(distil: Distil, teacher: Path, tmp_path: Path) -> None:
    result = distil(
        teacher_model_path=teacher,
        student_model="teacher:3",
        layer_choice="even",
        student_start="cut",
        output_dir=tmp_path,
    )
    run = result.run_directory
    assert read(run / "data" / "cut.json")["kept"] == evenly_spaced(3, 5)
    models = read(run / "data" / "models.json")
    for name in ("layers", "start"):
        del models["student"][name]
    (run / "data" / "models.json").write_text(json.dumps(models))
    pair = pair_of(run)
    assert (pair.layers, pair.start) == (None, None)
    whole = load_model(pair.teacher, dtype=torch.float32, console=QUIET)
    wanted, own = keep_layers(whole, 3).state_dict(), pair.load_student(QUIET).state_dict()
    assert all(torch.equal(own[name], wanted[name]) for name in own)


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_start_is_refused(trained: Any, tmp_path: Path, damage: str) -> None:
    run = shutil.copytree(trained.run_directory, tmp_path / "run")
    weights = run / "data" / "start" / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    opened = RunDirectory.open(run)
    with pytest.raises(PreconditionError, match=r"prepare-data.*data/start/model\.safetensors"):
        require_earlier_stages("validate", opened)


def test_the_plan_knows_the_start(trained: Any, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is compared are the parts of a stage, not two measurements of this machine.
    monkeypatch.setattr(microbenchmarks, "seconds_of", lambda call, device: 0.01)
    config = Parameters(**RunDirectory.open(trained.run_directory).manifest.config)
    prepared, fresh = find_models(config, trained.run_directory), find_models(config, tmp_path / "none")
    assert prepared.student_shape is not None
    assert fresh.student_shape is not None
    assert prepared.student_shape.parameters == fresh.student_shape.parameters
    stages = ["prepare-data", "distill"]
    done, planned = (estimate_run(config, folder, stages) for folder in (trained.run_directory, tmp_path / "none"))
    assert done["student_parameters"] == planned["student_parameters"]
    written = 4 * planned["student_parameters"]
    bare = estimate_run(
        dataclasses.replace(config, student_start="cut", layer_choice="even"), tmp_path / "none", stages
    )
    assert planned["disk_bytes"] - bare["disk_bytes"] == written
    assert planned["phases"]["prepare-data"] > bare["phases"]["prepare-data"] > 0


def test_black_box(distil: Distil, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    writer = save_model_folder(tmp_path / "writer", teacher_of_letters(tokenizer, layers=3), tokenizer)
    result = distil(teacher_model_path=writer, student_model="teacher:2", box_type="black", alpha=0.5)
    cut = read(result.run_directory / "data" / "cut.json")
    assert (len(cut["kept"]), cut["start"]) == (2, "fitted")
    assert read(result.student_path / "config.json")["n_layer"] == 2


def test_the_precision_may_change_later(trained: Any, tmp_path: Path) -> None:
    """What was measured is recorded: another number format of the training does not undo it."""
    run = RunDirectory.open(shutil.copytree(trained.run_directory, tmp_path / "run"))
    before = (run.data / "start" / "model.safetensors").read_bytes()
    resolved = Parameters(**{**run.manifest.config, "precision": "bf16"})
    assert needs_run("prepare-data", resolved, run, stage_inputs("prepare-data", resolved, run), force=False) is None
    assert (run.data / "start" / "model.safetensors").read_bytes() == before


def test_a_narrower_student(distil: Distil, teacher: Path) -> None:
    """Neurons are cut before layers, the start is fitted, and every later stage takes it for what it is."""
    result = distil(
        teacher_model_path=teacher, student_model="teacher:3,ffn=0.5", skip_validation=False, quality_gate="off"
    )
    config = read(result.student_path / "config.json")
    whole = read(teacher / "config.json")
    assert (config["n_layer"], config["n_inner"]) == (3, 4 * whole["n_embd"] // 2)
    cut = read(result.run_directory / "data" / "cut.json")
    assert cut["width"]["sizes"]["ffn"] == [4 * whole["n_embd"], 2 * whole["n_embd"]]
    assert cut["start"] == "fitted"
    pair = pair_of(result.run_directory)
    assert pair.start is not None
    student = pair.load_student(QUIET)
    assert sum(weights.numel() for weights in student.parameters()) == student_size(pair).parameters
    planned = find_models(pair.config, result.run_directory.parent / "another").student_shape
    assert planned is not None
    assert planned.parameters == student_size(pair).parameters
    assert result.before["parameters"] == student_size(pair).parameters


def test_fewer_hidden_numbers_are_fitted_to_those_of_the_teacher(distil: Distil, teacher: Path) -> None:
    result = distil(teacher_model_path=teacher, student_model="teacher:hidden=0.5", student_start="fitted")
    cut = read(result.run_directory / "data" / "cut.json")
    assert cut["width"]["sizes"]["hidden"] == [32, 16]
    assert cut["start"] == "fitted"
    fitted = [layer for layer in cut["fit"]["layers"] if "after" in layer]
    assert len(fitted) > 2
    assert all(layer["after"] < layer["before"] for layer in fitted)


def test_another_width_is_another_student(distil: Distil, teacher: Path) -> None:
    one, other = (
        distil(teacher_model_path=teacher, student_model=f"teacher:3,ffn={share}", student_start="cut")
        for share in (0.5, 0.75)
    )
    first, second = (read(run.run_directory / "data" / "models.json")["student"] for run in (one, other))
    assert first["fingerprint"] != second["fingerprint"]
    assert (one.run_directory / "data" / "start" / "config.json").is_file()  # Its weights are no longer the teacher's.


def test_a_width_that_no_configuration_can_say_is_refused(distil: Distil, teacher: Path) -> None:
    with pytest.raises(UsageError, match="heads"):
        distil(teacher_model_path=teacher, student_model="teacher:3,heads=0.5")
