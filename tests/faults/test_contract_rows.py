"""Whole runs through the command line, for what the documentation promises about faults and bad input.

All of them run in one place whose every other folder (home, temporary files, the current folder) must stay empty but for
caches; no test lets a traceback or an escape sequence through.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked_cli import Done, ForkedCli, Signals, forked_cli
from settings_file import settings_file
from tiny_models import make_paragraph, save_model_folder, tiny_model, tiny_tokenizer, write_texts

from distillkit.storage import files_below

if not hasattr(os, "fork"):
    pytest.skip("needs a system that can fork", allow_module_level=True)

TOKEN = "hf_ThisIsNobodysToken0123456789"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Models and texts, and the folders in which nothing may be left: home, temporary, here."""
    root = tmp_path_factory.mktemp("contract")
    folders = {name: root / name for name in ("home", "temporary", "here")}
    for folder in folders.values():
        folder.mkdir()
    tokenizer = tiny_tokenizer(384)
    save_model_folder(root / "teacher", tiny_model("gpt2", 384, layers=1, hidden=16, seed=1), tokenizer)
    save_model_folder(root / "student", tiny_model("gpt2", 384, layers=1, hidden=16, seed=2), tokenizer)
    write_texts(root / "texts.txt", 60, sentences=2)
    return SimpleNamespace(root=root, **folders)


@pytest.fixture(scope="module")
def cli(place: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCli]:
    variables = {
        "HOME": str(place.home), "TMPDIR": str(place.temporary), "HF_HOME": str(place.home / ".cache" / "huggingface"),
        "HF_TOKEN": TOKEN, "XDG_CACHE_HOME": str(place.home / ".cache"), "MPLCONFIGDIR": str(place.home / ".cache" / "matplotlib"),
    }  # fmt: skip
    with forked_cli(tmp_path_factory.mktemp("children"), **variables) as server:
        yield server
        left = [str(path) for folder in (place.temporary, place.here) for path in folder.rglob("*")]
        assert left == []
        assert [path.name for path in place.home.iterdir() if path.name != ".cache"] == []


def options(place: SimpleNamespace, output: Path, **more: Any) -> list[str]:
    values = {
        "teacher_model_path": place.root / "teacher", "student_model_path": place.root / "student",
        "dataset_path": place.root / "texts.txt", "output_dir": output, "folder_name": "run", "sample_size": 12,
        "max_length": 40, "held_out_size": 4, "batch_size": 2, "epochs": 1, "checkpoint_interval": 2, "precision": "fp32",
        "compile_loss": "off", "teacher_cache": "exact", "no_cuda": True, "install_deps": False,
        "allow_out_of_range": True, "save_plot": False, "skip_validation": True, "control": False, **more,
    }  # fmt: skip
    return ["--config", str(settings_file(place.root, **values))]


def run(cli: ForkedCli, place: SimpleNamespace, *arguments: object, code: int = 0, **more: Any) -> Done:
    done = cli.run(*arguments, cwd=place.here, **more)
    assert done.code == code, done
    assert "Traceback" not in done.err
    assert "this is a defect" not in done.err
    assert "\x1b" not in done.out + done.err
    return done


# --- what a run leaves behind ----------------------------------------------------------------------------------------


def test_a_whole_run_leaves_nothing_elsewhere_and_no_token(
    cli: ForkedCli, place: SimpleNamespace, tmp_path: Path
) -> None:
    """The folders are looked at when all tests of this module are through."""
    arguments = options(place, tmp_path / "out", save_plot=True, skip_validation=False)
    done = run(cli, place, "distill", *arguments, "--no-skip-demo", "--run-tests", "--json")
    assert json.loads(done.out)["status"] == "complete"
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run", "latest", ".teacher-cache"}
    # A folder is named like a token, which a person may well paste in the wrong place.
    wrong = run(cli, place, "distill", "--teacher-model-path", TOKEN, "--json", code=2)
    told = run(cli, place, "distill", "--config", f"{TOKEN}.yaml", code=2)
    for said in (done, wrong, told):
        assert TOKEN not in said.out + said.err
    failed = cli.run("distill", "--teacher-model-path", TOKEN, "--debug", cwd=place.here)
    assert "Traceback" in failed.err
    assert TOKEN not in failed.err
    assert [path for path in files_below(tmp_path) if TOKEN.encode() in path.read_bytes()] == []


def test_escape_sequences_in_texts_and_prompts(cli: ForkedCli, place: SimpleNamespace, tmp_path: Path) -> None:
    """Neither the title of a terminal nor its colours are those of a text."""
    nasty = "\x1b]0;owned\x07\x1b[31m[bold]red[/bold]\x1b[0m \x9b5m"
    texts = [
        {"text": f"{nasty}{text}"} for text in (place.root / "texts.txt").read_text(encoding="utf-8").split("\n\n")
    ]
    path = tmp_path / "nasty.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    run(cli, place, "distill", *options(place, tmp_path / "out", dataset_path=path, max_length=200), "--no-skip-demo")
    # `run` looks for the escape character; markup is shown as it is.
    done = run(cli, place, "demo", "--run", tmp_path / "out" / "run", "--prompt", f"{nasty}Once upon a time")
    assert "[bold]red[/bold]" in done.out
    assert "owned" not in done.out
    assert "\x9b" not in done.out


def test_links_among_the_checkpoints(cli: ForkedCli, place: SimpleNamespace, tmp_path: Path) -> None:
    """Pruning deletes what the program committed, and what a link leads to is not that."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("mine", encoding="utf-8")
    run(cli, place, "prepare-data", *options(place, tmp_path))
    root = tmp_path / "run" / "checkpoints"
    root.mkdir()
    for name in ("step-1", "step-999", ".tmp-step-2", ".tmp-old-step-2"):
        (root / name).symlink_to(precious, target_is_directory=True)
    (root / "notes").mkdir()
    run(cli, place, "distill", "--run", tmp_path / "run")
    assert (precious / "thesis.txt").read_text(encoding="utf-8") == "mine"
    kept = {path.name for path in root.iterdir()}
    assert {"step-4", "step-6", "notes", "step-1", "step-999"} <= kept
    assert not (root / "step-2").exists()


# --- two processes, and a place that changes -------------------------------------------------------------------------


def test_two_processes_and_one_that_was_killed(cli: ForkedCli, place: SimpleNamespace, tmp_path: Path) -> None:
    run(cli, place, "prepare-data", *options(place, tmp_path))
    folder = tmp_path / "run"
    # The first stops itself in the middle of a step, holding the lock.
    first = cli.start(
        "distill", "--run", folder, cwd=place.here,
        signals=Signals("distillkit.training.trainer:DistillTrainer.compute_loss", 3, (signal.SIGSTOP,)),
    )  # fmt: skip
    until = time.monotonic() + 60
    while not any((folder / "checkpoints").glob("step-2/COMMITTED.json")):
        assert time.monotonic() < until
        time.sleep(0.01)
    for stage in ("distill", "prepare-data"):
        done = run(cli, place, stage, "--run", folder, code=3)
        words = rf"error: {folder} is in use by process {first.pid} on {re.escape(socket.gethostname())}, for \d+ s"
        assert re.search(words, done.err)
        assert "hint: wait for it, or stop it" in done.err
    first.send(signal.SIGKILL)
    assert first.wait().code == -signal.SIGKILL
    done = run(cli, place, "distill", "--run", folder)
    assert "continuing from step 2 of 6" in done.err


def test_a_run_that_was_moved_goes_on(cli: ForkedCli, place: SimpleNamespace, tmp_path: Path) -> None:
    done = run(cli, place, "distill", *options(place, tmp_path / "one"), code=143,
               signals=Signals("distillkit.training.trainer:DistillTrainer.compute_loss", 3, (signal.SIGTERM,)))  # fmt: skip
    assert "it is saved" in done.err
    (tmp_path / "another place").mkdir()
    moved = (tmp_path / "one" / "run").rename(tmp_path / "another place" / "renamed")
    done = run(cli, place, "distill", "--run", moved)
    assert "continuing from step 3 of 6" in done.err
    assert (moved / "student" / "final" / "model.safetensors").is_file()
    assert not (tmp_path / "one" / "run").exists()


def test_what_changed_between_stages_is_listed(cli: ForkedCli, place: SimpleNamespace, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts.txt", 60, sentences=2)
    given = options(place, tmp_path, dataset_path=texts)
    run(cli, place, "prepare-data", *given)
    manifest = (tmp_path / "run" / "manifest.json").read_bytes()
    done = run(
        cli,
        place,
        "distill",
        "--run",
        tmp_path / "run",
        "--max-length",
        "32",
        "--seed",
        "7",
        "--batch-size",
        "3",
        code=3,
    )
    for words in ("max_length: 40 -> 32", "seed: 42 -> 7", "--force"):
        assert words in done.err
    assert "batch_size: " not in done.err.split("error: ")[1], "no stage has used it yet"
    assert (tmp_path / "run" / "manifest.json").read_bytes() == manifest
    tokenizer = place.root / "student" / "tokenizer.json"
    sound = tokenizer.read_bytes()
    try:
        tokenizer.write_bytes(sound + b"\n")
        done = run(cli, place, "distill", "--run", tmp_path / "run", code=3)
        assert "the student has changed since prepare-data" in done.err
    finally:
        tokenizer.write_bytes(sound)
    texts.write_text(texts.read_text(encoding="utf-8") + "\n\nOne more.\n", encoding="utf-8")
    done = run(cli, place, "distill", "--run", tmp_path / "run", code=3)
    assert "changed since: data texts.txt" in done.err


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pickle", "code", "truncated"])
def test_models_that_are_refused(cli: ForkedCli, place: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    """Exit code 3 with what to do; nothing of theirs runs and no result is left."""
    folder = save_model_folder(tmp_path / "model", tiny_model("gpt2", 384, layers=1, hidden=16), tiny_tokenizer(384))
    weights = folder / "model.safetensors"
    if kind == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["auto_map"] = {"AutoModelForCausalLM": "modeling.Mine"}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    done = run(cli, place, "distill", *options(place, tmp_path / "out", teacher_model_path=folder), code=3)
    error, hint = done.err.splitlines()[-3:-1]
    assert error.startswith("error: ")
    assert {"pickle": "pickle", "code": "brings its own Python code", "truncated": "model.safetensors is damaged"}[
        kind
    ] in error
    assert {"pickle": "safetensors", "code": "--trust-remote-code", "truncated": "get it again"}[kind] in hint
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out" / "run" / "student").exists()


def test_oddities_of_models_are_said(cli: ForkedCli, place: SimpleNamespace, tmp_path: Path) -> None:
    """A context shorter than the texts; a tokenizer without any end; a padded vocabulary: it works, and says so."""
    tokenizer = tiny_tokenizer(300, eos=None)
    folder = save_model_folder(
        tmp_path / "teacher", tiny_model("gpt2", 320, layers=1, hidden=16, context=24), tokenizer
    )
    done = run(cli, place, "distill", *options(place, tmp_path, teacher_model_path=folder))
    assert "the teacher's context is 24 tokens: examples are cut to it" in done.err
    assert "the teacher's tokenizer has no end-of-text token: none is used" in done.err
    stats = json.loads((tmp_path / "run" / "data" / "stats.json").read_text(encoding="utf-8"))
    assert stats["max_length"]["teacher"] == 24


# --- data and configuration ------------------------------------------------------------------------------------------


def test_what_is_done_with_the_data_is_said(cli: ForkedCli, place: SimpleNamespace, tmp_path: Path) -> None:
    """Texts that are held out and trained on are taken away; fewer examples than asked for are all used."""
    import random

    generator = random.Random(3)
    texts = [make_paragraph(generator, 2) for _ in range(30)]
    (tmp_path / "data").mkdir()
    for name, part in (("train", texts), ("test", texts[:8])):
        (tmp_path / "data" / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    given = options(place, tmp_path, dataset_path=tmp_path / "data", sample_size=5000, max_length=200)
    done = run(cli, place, "prepare-data", *given)
    assert "documents left out of train because they are held out too: 8" in done.err
    assert re.search(r"warning: .* gives \d+ training examples, fewer than sample_size 5,000: all are used", done.err)
    line = next(line for line in done.err.splitlines() if line.startswith("left out"))
    assert "documents of train because they are held out too: 8" in line


def test_a_small_held_out_part_is_said(cli: ForkedCli, place: SimpleNamespace, tmp_path: Path) -> None:
    """A verdict on fewer texts than were asked for is a weaker one."""
    import random

    generator = random.Random(3)
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": make_paragraph(generator, 2)}) + "\n" for _ in range(60))
    )
    done = run(
        cli, place, "prepare-data", *options(place, tmp_path, dataset_path=tmp_path / "a.jsonl", held_out_size=300)
    )
    assert re.search(r"warning: .* gives \d+ (validation|test) examples, fewer than held_out_size 300", done.err)
    given = options(place, tmp_path / "unasked", dataset_path=tmp_path / "a.jsonl", held_out_size=None)
    assert re.search(
        r"warning: .* leaves \d+ (validation|test) documents to measure on", run(cli, place, "prepare-data", *given).err
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("epohcs: 3\n", "did you mean 'epochs'"), ("epochs: 1\nepochs: 2\n", "stands twice"), ("epochs: many\n", "a whole number"),
        ("a: &a [1]\nb: *a\n", "aliases"), ("epochs: !!python/name:os.system\n", "tags"), ("learning_rate: 5e-5\nepochs: [1]\n", "epochs"),
    ],
)  # fmt: skip
def test_bad_yaml_is_refused_before_anything_is_made(
    cli: ForkedCli, place: SimpleNamespace, tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "c.yaml").write_text(content, encoding="utf-8")
    done = run(cli, place, "distill", "--config", tmp_path / "c.yaml", "--output-dir", tmp_path / "out", code=2)
    assert words in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


# --- memory ----------------------------------------------------------------------------------------------------------


def test_out_of_memory_is_said_and_resumable(
    place: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the peak and the flags that help; in this process, where the allocator can be made to fail."""
    import torch
    from huggingface_hub import constants

    from distillkit.cli import main as command_line
    from distillkit.training.trainer import DistillTrainer

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    compute_loss = DistillTrainer.compute_loss

    def failing(self: DistillTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 3:
            torch.empty(1 << 50)
        return compute_loss(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "compute_loss", failing)
        assert command_line.main(["distill", *options(place, tmp_path)]) == 1
    said = capfd.readouterr().err
    assert re.search(r"error: out of memory \(peak [\d.]+ [MG]B\)", said)
    assert "--batch-size" in said
    assert "--max-length" in said
    assert said.splitlines()[-1] == f"continue with: distillkit distill --run {tmp_path / 'run'}"
    assert command_line.main(["distill", "--run", str(tmp_path / "run")]) == 0
    assert "continuing from step 2 of 6" in capfd.readouterr().err
