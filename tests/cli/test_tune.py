"""`distillkit tune` on real, tiny models: it finds the rate, survives kill -9, and never reads the test part."""

from __future__ import annotations

import json
import math
import shlex
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
import warm_python
from small_pictures import small_pictures

from distillkit.settings.strict_yaml import read_yaml_mapping

# Two epochs of 24 texts, two by two: 24 steps, of which the default rate makes nothing.
LONG = {"sample_size": 24, "batch_size": 2, "epochs": 2, "learning_rate": 5e-5, "temperature": 2.0}


@pytest.fixture(scope="module")
def settings(pair: SimpleNamespace, small: dict[str, Any]) -> dict[str, Any]:
    models = {"teacher_model_path": pair.teacher, "student_model_path": pair.student, "dataset_path": pair.texts}
    return {**models, **small, **LONG}


@pytest.fixture(scope="module")
def file(pair: SimpleNamespace, settings: dict[str, Any]) -> Path:
    from settings_file import settings_file

    return settings_file(pair.root, **settings)


def journal_lines(run: Path, kind: str) -> list[dict[str, Any]]:
    path = run / "tune" / "journal.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def scores(run: Path) -> list[tuple[Any, ...]]:
    """What every trial came to, in order, times left out."""
    columns = ("settings", "texts", "epochs", "bits_per_byte")
    return [tuple(line[column] for column in columns) for line in journal_lines(run, "trial")]


@pytest.fixture(scope="module")
def searched(file: Path, offline: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which six trials were made, undisturbed. It is not written into."""
    from distillkit.cli.main import main

    out = tmp_path_factory.mktemp("searched")
    words = ["tune", "--config", file, "--output-dir", out, "--folder-name", "run", "--trials", 6, "--quiet"]
    with small_pictures():  # As `command` draws them: files are compared.
        assert main([str(word) for word in words]) == 0
    return out / "run"


def test_it_finds_the_rate_is_extended_and_its_command_works(
    command: Callable[..., Any], searched: Path, file: Path, tmp_path: Path
) -> None:
    """One search, from its beginning to the training that it recommends."""
    new = ["tune", "--config", file, "--output-dir", tmp_path / "planned", "--trials", 6, "--dry-run"]
    assert "learning rate, temperature, alpha, divergence" in command(*new).err
    assert not (tmp_path / "planned").exists()

    run = tmp_path / "out" / "run"
    shutil.copytree(searched, run)
    again = command("tune", "--run", run, "--trials", 6, "--json")
    assert "already complete" in again.err
    assert scores(run) == scores(searched)
    done = json.loads(again.out)
    assert done["stages"]["tune"]["trials"] == 6
    found = done["tune"]
    assert found["given"] == {"settings": found["given"]["settings"], "beaten": True}
    assert found["given"]["settings"]["learning_rate"] == 5e-5
    best = found["best"]
    assert best["settings"]["learning_rate"] >= 3e-4
    assert best["bits_per_byte"] < found["start"]["bits_per_byte"] - 0.01
    # Times as long as the given one's, and plainly better there.
    compared = found["compared"]
    assert compared["best"]["texts"] == compared["given"]["texts"]
    assert compared["best"]["bits_per_byte"] < compared["given"]["bits_per_byte"]
    assert all((run / name).stat().st_size > 0 for name in ("plots/tune.png", "plots/tune.svg", "tune/result.json"))
    written = read_yaml_mapping(run / "tune" / "best.yaml", "file")
    assert {name: value for name, value in written.items() if name != "allow_out_of_range"} == best["settings"]
    # No students, no checkpoints, nothing that a trial has left.
    assert {path.name for path in (run / "tune").iterdir()} == {"journal.jsonl", "best.yaml", "result.json"}
    assert not (run / "student").exists()
    assert not (run / "checkpoints").exists()

    # A larger budget goes on.
    before = scores(run)
    table = command("tune", "--run", run, "--trials", 12).out
    extended = scores(run)
    assert extended[: len(before)] == before
    assert len(before) < len(extended) <= 12

    # The command that is printed trains with what was found.
    assert "rank" in table
    assert "as given" in table
    words = shlex.split(next(line for line in table.splitlines() if line.startswith("train with it: "))[15:])
    assert words[0] == "distillkit"
    command(*words[1:])
    best = json.loads((run / "tune" / "result.json").read_text())["best"]
    config = json.loads((run / "manifest.json").read_text())["config"]
    assert {name: config[name] for name in best["settings"]} == best["settings"]
    assert config["beta"] == pytest.approx(1 - config["alpha"])
    # The winner trained as long as the run does: then it was the very same training.
    if best["texts"] * best["epochs"] == 48:
        last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
        assert last["eval_bits_per_byte"] == best["bits_per_byte"]
    # After a training the command says --force.
    assert command("tune", "--run", run).out.rstrip().endswith("--force")


def test_killed_in_the_middle_of_a_trial_it_ends_as_always(
    command: Callable[..., Any], cli_env: Callable[..., dict[str, str]], searched: Path, file: Path, tmp_path: Path
) -> None:
    """And two searches of the same number of trials find the same, to the last digit."""
    killed = tmp_path / "out" / "run"
    words = ["tune", "--config", file, "--output-dir", killed.parent, "--folder-name", "run", "--trials", 6]
    for wanted in (1, 3):
        process = warm_python.Popen(
            [sys.executable, "-m", "distillkit", *map(str, words)], env=cli_env(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 200
        while len(journal_lines(killed, "trial")) < wanted and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert wanted <= len(journal_lines(killed, "trial")) < 6
        words = ["tune", "--run", killed]  # The budget is remembered.
    before = scores(killed)
    assert "it was cut off" in command(*words).err
    assert scores(killed)[: len(before)] == before
    assert scores(killed) == scores(searched)
    for name in ("tune/best.yaml", "plots/tune.svg"):
        assert (killed / name).read_bytes() == (searched / name).read_bytes()


def test_a_signal_ends_it_between_two_steps(
    command: Callable[..., Any], cli_env: Callable[..., dict[str, str]], file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "out" / "run"
    process = warm_python.Popen(
        [sys.executable, "-m", "distillkit", "tune", "--config", str(file), "--output-dir", str(run.parent),
         "--folder-name", "run", "--minutes", "5"],
        env=cli_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 200
    while not journal_lines(run, "trial") and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert f"continue with: distillkit tune --run {run}" in said
    finished = len(scores(run))
    # A budget that is spent: what is known is told, nothing is begun.
    command("tune", "--run", run, "--minutes", 0.001, "--json", code=None)
    assert len(scores(run)) == finished


@pytest.mark.parametrize(("flag", "value"), [("--minutes", "0"), ("--trials", "-3"), ("--minutes", "nan")])
def test_a_budget_that_is_none_is_refused_before_anything_is_made(
    command: Callable[..., Any], file: Path, tmp_path: Path, flag: str, value: str
) -> None:
    assert flag in command("tune", "--config", file, "--output-dir", tmp_path / "out", flag, value, code=2).err
    assert not (tmp_path / "out").exists()


# --- in this process ----------------------------------------------------------------------------------------------------


def test_the_test_part_is_never_read(distil: Any, tune: Callable[..., Any]) -> None:
    run = distil(**LONG).run_directory
    shutil.rmtree(run / "data" / "test")
    assert tune(run, trials=2).metrics["trials"] == 2


@pytest.fixture(scope="module")
def writer(pair: SimpleNamespace) -> Path:
    """A teacher that writes what can be learnt from."""
    from tiny_models import save_model_folder, teacher_of_letters, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    return save_model_folder(pair.root / "writer", teacher_of_letters(tokenizer), tokenizer)


KINDS: dict[str, dict[str, Any]] = {
    "one tokenizer": {},
    "no teacher": {"alpha": 0.0},
    "black box": {"box_type": "black", "alpha": 0.5},
    "black box, the teacher's texts alone": {"box_type": "black", "alpha": 1.0},
    "two tokenizers": {"student_model_path": "foreign_student"},
    "the teacher beside the student": {"teacher_cache": "off"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_of_the_whole_length_is_the_training_of_the_run(
    distil: Any,
    tune: Callable[..., Any],
    pair: SimpleNamespace,
    writer: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The given configuration, trained on everything, gets the very score that the run has logged at its end."""
    changes = dict(KINDS[kind])
    if "student_model_path" in changes:
        changes["student_model_path"] = getattr(pair, changes["student_model_path"])
    if changes.get("box_type") == "black":
        changes["teacher_model_path"] = writer
    run = distil(**{**LONG, "learning_rate": 1e-3, "sample_size": 12, **changes}).run_directory
    if kind == "the teacher beside the student":
        monkeypatch.setattr("distillkit.tuning.texts.disk_problem", lambda *_: "there is no room")
    result = tune(run, trials=2)  # two whole trainings, the given configuration first
    trial = journal_lines(run, "trial")[0]
    assert (trial["texts"], trial["epochs"]) == (12, 2)
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    held_out = [line["eval_bits_per_byte"] for line in logged if "eval_bits_per_byte" in line]
    assert journal_lines(run, "facts")[-1]["facts"].get("start", held_out[0]) == held_out[0]
    assert trial["bits_per_byte"] == held_out[-1]
    assert result.metrics["trials"] == 2
    expected = {"no teacher": 1, "black box": 2, "black box, the teacher's texts alone": 2}.get(kind, 4)
    assert len(trial["settings"]) == expected


def test_diverged_trials_are_results(distil: Any, tune: Callable[..., Any]) -> None:
    """A rate at which weights overflow is one row of the table; the search goes on and finds another."""
    run = distil(**LONG).run_directory
    tune(run, trials=3, changes={"learning_rate": 1e30})
    first = journal_lines(run, "trial")[0]
    assert (first["settings"]["learning_rate"], first["bits_per_byte"]) == (1e30, None)
    assert first["diverged"]
    found = json.loads((run / "tune" / "result.json").read_text())
    assert found["best"]["settings"]["learning_rate"] < 1
    assert math.isfinite(found["best"]["bits_per_byte"])
    assert any("the configuration as given diverged" in sentence for sentence in found["sentences"])


def test_other_texts_or_settings_begin_the_search_anew(distil: Any, tune: Callable[..., Any]) -> None:
    run = distil(**LONG).run_directory
    tune(run, trials=1)
    first = scores(run)
    # What is searched is no part of it, what is not is.
    tune(run, trials=1, changes={"learning_rate": 1e-3})
    assert scores(run) == first
    tune(run, trials=1, changes={"warmup_fraction": 0.3})
    assert len(scores(run)) == 1
    assert scores(run) != first
