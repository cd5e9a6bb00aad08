"""Runs whose student is `teacher:auto`: the race finds a shape of the wanted size, is recorded, and survives kill -9."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import warm_python
from tiny_models import save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer

from distillkit import UsageError
from distillkit.console import Console
from distillkit.dry_run.plan import estimate_run
from distillkit.models.loading import load_model
from distillkit.models.locating import locate
from distillkit.models.references import parse_reference
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import open_pair
from distillkit.run.student_size import student_size
from distillkit.settings.parameters import Parameters

Distil = Callable[..., Any]
QUIET = Console(quiet=True)
# The teacher's parameters, and those of the student: five shapes have as many, of which one is shallower, one narrower, and
# others have fewer neurons or heads.
WHOLE, TARGET = 61_728, 51_000
# Two rungs: 32 texts, and all 64.
RACE: dict[str, Any] = {"student_model": "teacher:auto", "target_parameters": TARGET, "sample_size": 64}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def journal_lines(run: Path, kind: str) -> list[dict[str, Any]]:
    path = run / "shapes" / "journal.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def scores(run: Path) -> list[tuple[Any, ...]]:
    """What every trial came to, in order, times left out."""
    return [(line["settings"], line["texts"], line["bits_per_byte"]) for line in journal_lines(run, "trial")]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = tiny_tokenizer()
    made: Any = tiny_model("llama", len(tokenizer), seed=1, eos_token_id=0, layers=4, hidden=32)
    with torch.no_grad():
        made.model.embed_tokens.weight.mul_(6)
        for number, block in enumerate(made.model.layers):
            for projection in (block.self_attn.o_proj, block.mlp.down_proj):
                projection.weight.mul_(3 + 2 * number)
    return save_model_folder(tmp_path_factory.mktemp("wide") / "teacher", made, tokenizer)


@pytest.fixture(scope="module")
def raced(distil: Distil, teacher: Path) -> Any:
    return distil(teacher_model_path=teacher, **RACE, skip_validation=False, quality_gate="off")


def test_the_winner_fits_is_recorded_and_trained(raced: Any) -> None:
    run = raced.run_directory
    manifest, cut, models, stats = (
        read(run / name) for name in ("manifest.json", "data/cut.json", "data/models.json", "data/stats.json")
    )
    choice = cut["shapes"]
    assert choice == stats["shapes"] == manifest["stages"]["prepare-data"]["metrics"]["shapes"]
    winner = choice["student"]
    assert choice["candidates"][0]["student"] == winner
    assert len(choice["candidates"]) == 5
    assert [any(share in row["student"] for row in choice["candidates"]) for share in ("ffn", "heads", "hidden")] == [
        True
    ] * 3
    # It won among those that trained longest.
    longest = [row for row in choice["candidates"] if row["texts"] == 64]
    assert len(longest) >= 2
    assert min(longest, key=lambda row: float(row["bits_per_byte_trained"]))["student"] == winner
    # Everything afterwards has the shape; what was asked for stays what it was.
    assert manifest["config"]["student_model"] == "teacher:auto"
    assert models["student"]["reference"] == manifest["models"]["student"]["reference"] == winner
    trained = load_model(locate(parse_reference(str(raced.student_path)), QUIET), dtype=torch.float32, console=QUIET)
    count = sum(weights.numel() for weights in trained.parameters())
    assert 0.85 * TARGET <= count == choice["parameters"] <= TARGET
    opened = RunDirectory.open(run)
    pair = open_pair(Parameters(**opened.manifest.config), opened, QUIET)
    assert pair.student.reference == parse_reference(winner)
    assert student_size(pair).parameters == count
    assert sum(weights.numel() for weights in pair.load_student(QUIET).parameters()) == count
    assert winner in (raced.student_path / "README.md").read_text(encoding="utf-8")
    assert read(run / "validation.json")["after"]["bits_per_byte"] > 0
    # The journal alone is left of the race, and is a file of the stage.
    assert [path.name for path in (run / "shapes").iterdir()] == ["journal.jsonl"]
    outputs = {output["path"] for output in manifest["stages"]["prepare-data"]["outputs"]}
    assert "shapes/journal.jsonl" in outputs


def test_the_race_trains_as_a_run_of_that_shape(raced: Any, distil: Distil, teacher: Path) -> None:
    """The winner's last trial is the training of the run itself: one epoch of all texts, with the same start and teacher."""
    choice = read(raced.run_directory / "data" / "cut.json")["shapes"]
    last = next(line["bits_per_byte"] for line in reversed(journal_lines(raced.run_directory, "trial"))
                if line["texts"] == 64 and line["bits_per_byte"] is not None
                and f"{line['bits_per_byte']:.4f}" == choice["candidates"][0]["bits_per_byte_trained"])  # fmt: skip
    lines = (raced.run_directory / "metrics.jsonl").read_text().splitlines()
    assert [line["eval_bits_per_byte"] for line in map(json.loads, lines) if "eval_bits_per_byte" in line][-1] == last
    named = distil(
        teacher_model_path=teacher, **{**RACE, "student_model": choice["student"], "target_parameters": None}
    )
    weights = [(run.student_path / "model.safetensors").read_bytes() for run in (raced, named)]
    assert weights[0] == weights[1]


def test_the_plan_says_what_it_does_not_know_and_then_knows_it(
    raced: Any, command: Callable[..., Any], teacher: Path, pair: SimpleNamespace, small: dict[str, Any], tmp_path: Path
) -> None:
    from settings_file import settings_file

    file = settings_file(tmp_path, teacher_model_path=teacher, dataset_path=pair.texts, **{**small, **RACE})
    planned = command("distill", "--config", file, "--output-dir", tmp_path / "out", "--dry-run").out
    assert "not known before prepare-data has chosen the shape: at most 51,000 parameters" in " ".join(planned.split())
    config = Parameters(**RunDirectory.open(raced.run_directory).manifest.config)
    known = estimate_run(config, raced.run_directory, ["distill"])
    assert known["student_parameters"] == read(raced.run_directory / "data" / "cut.json")["shapes"]["parameters"]
    # Also where the start is the teacher's own layers, without a folder.
    bare = shutil.copytree(raced.run_directory, tmp_path / "bare")
    shutil.rmtree(bare / "data" / "start")
    assert estimate_run(config, bare, ["distill"])["student_parameters"] == known["student_parameters"]
    assert estimate_run(config, tmp_path / "none", [])["student_parameters"] is None


def test_killed_in_the_race_it_ends_as_always(
    raced: Any, command: Callable[..., Any], cli_env: Callable[..., dict[str, str]], teacher: Path, pair: SimpleNamespace,
    small: dict[str, Any], tmp_path: Path,
) -> None:  # fmt: skip
    from settings_file import settings_file

    file = settings_file(tmp_path, teacher_model_path=teacher, dataset_path=pair.texts, **{**small, **RACE})
    run = tmp_path / "out" / "run"
    words = ["prepare-data", "--config", file, "--output-dir", run.parent, "--folder-name", "run"]
    total = len(scores(raced.run_directory))
    # While shapes are scored, and while they are trained.
    for wanted in (2, total - 3):
        process = warm_python.Popen(
            [sys.executable, "-m", "distillkit", *map(str, words)], env=cli_env(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 200
        while len(journal_lines(run, "trial")) < wanted and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert wanted <= len(journal_lines(run, "trial")) < total
        words = ["prepare-data", "--run", run]
    before = scores(run)
    assert "of an earlier attempt are used again" in command(*words).err
    assert scores(run)[: len(before)] == before
    assert scores(run) == scores(raced.run_directory)
    assert (run / "data" / "cut.json").read_bytes() == (raced.run_directory / "data" / "cut.json").read_bytes()
    weights = [folder / "data" / "start" / "model.safetensors" for folder in (run, raced.run_directory)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert [path.name for path in (run / "shapes").iterdir()] == ["journal.jsonl"]


def test_black_box_races_on_the_true_texts(distil: Distil, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = tiny_tokenizer()
    writer = save_model_folder(tmp_path / "writer", teacher_of_letters(tokenizer, layers=3), tokenizer)
    total = sum(
        weights.numel()
        for weights in load_model(
            locate(parse_reference(str(writer)), QUIET), dtype=torch.float32, console=QUIET
        ).parameters()
    )
    result = distil(
        teacher_model_path=writer, student_model="teacher:auto", target_parameters=total - 1, box_type="black",
        alpha=0.5, quiet=False,
    )  # fmt: skip
    said = capsys.readouterr().err
    assert "the teacher's are not written yet" in " ".join(said.split())
    assert (result.run_directory / "teacher" / "generated.jsonl").is_file()
    assert read(result.run_directory / "data" / "cut.json")["shapes"]["parameters"] < total


def test_without_the_teacher(distil: Distil, teacher: Path) -> None:
    result = distil(teacher_model_path=teacher, **RACE, alpha=0.0, student_start="cut", layer_choice="even")
    choice = read(result.run_directory / "data" / "cut.json")["shapes"]
    assert choice["parameters"] <= TARGET
    assert "teacher_pass" not in result.metrics


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target_parameters": None}, r"no size is given"),
        ({"target_parameters": WHOLE}, r"the teacher itself has 61,728"),
        ({"target_parameters": 1_000}, r"the smallest student of this teacher has [0-9,]+ of parameters"),
    ],
)
def test_refusals(distil: Distil, teacher: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        distil(teacher_model_path=teacher, **{**RACE, **settings})
