"""What the command line makes of a Hub that refuses, and of what a repository may hide. See test_hub.py for downloads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from hub_server import HubServer
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer, write_texts

Prepare = Callable[..., CompletedProcess[str]]


@pytest.fixture
def model(hub_server: HubServer) -> Path:
    """A tiny model on the server, as org/tiny."""
    tokenizer = tiny_tokenizer()
    return save_model_folder(hub_server.folder("org/tiny"), tiny_model("gpt2", len(tokenizer)), tokenizer)


@pytest.fixture
def prepare(hub_server: HubServer, run_cli: Prepare, cli_env: Callable[..., dict[str, str]], tmp_path: Path) -> Prepare:
    """`prepare(teacher, student)` -> the finished `distillkit prepare-data`, which had to exit with 3."""
    texts = write_texts(tmp_path / "texts.jsonl", 300)

    def run(teacher: str, student: str) -> CompletedProcess[str]:
        return run_cli(
            "prepare-data", "--teacher-model", teacher, "--student-model", student, "--dataset-path", texts,
            "--sample-size", 100, "--max-length", 64, "--no-install-deps",
            env=cli_env(HF_ENDPOINT=hub_server.url), cwd=tmp_path, check=3,
        )  # fmt: skip

    return run


def assert_one_line(done: CompletedProcess[str], words: str, hint: str) -> None:
    assert done.stdout == ""
    assert len([line for line in done.stderr.splitlines() if words in line]) == 1, done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_an_unknown_id_is_asked_for_once(hub_server: HubServer, model: Path, prepare: Prepare, role: str) -> None:
    pair = ("org/absent", "org/tiny") if role == "teacher" else ("org/tiny", "org/absent")
    assert_one_line(prepare(*pair), "org/absent: not on the Hub", f"--{role}-model-path")
    # An answer is an answer: asking again would not change it.
    asked = [request for request in hub_server.requests if request.path.startswith("/api/models/org/absent")]
    assert [request.status for request in asked] == [401]


def test_a_gated_model_is_named(hub_server: HubServer, model: Path, prepare: Prepare) -> None:
    hub_server.gate("org/tiny")
    assert_one_line(prepare("org/tiny", "org/tiny"), "org/tiny: access has to be asked for", "HF_TOKEN")
    assert hub_server.bytes_served("model.safetensors") < (model / "model.safetensors").stat().st_size


def test_the_code_of_a_tokenizer_does_not_run(model: Path, prepare: Prepare, tmp_path: Path) -> None:
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["own.Own", None]}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    (model / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    assert_one_line(prepare("org/tiny", "org/tiny"), "brings its own Python code", "--trust-remote-code")
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_truncated_on_the_hub(model: Path, prepare: Prepare) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert_one_line(prepare("org/tiny", "org/tiny"), "model.safetensors is damaged", "again")
