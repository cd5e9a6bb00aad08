"""A black-box run whose teacher is behind a server: faults of the server, kill -9, Ctrl-C, and a key that is nowhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import warm_python
from chat_server import ChatServer
from small_runs import student_digest
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer, write_texts

from distillkit import PreconditionError, UsageError, distill_models

KEY = "sk-secret-0123456789"
EXAMPLES = 12


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("served")
    tokenizer = tiny_tokenizer()
    student = save_model_folder(root / "student", tiny_model("gpt2", len(tokenizer), layers=1, hidden=16), tokenizer)
    return SimpleNamespace(root=root, student=student, texts=write_texts(root / "texts.txt", 90))


def settings(made: SimpleNamespace, server: ChatServer, output: Path, **more: Any) -> dict[str, Any]:
    return {
        "teacher_model": "openai:tiny", "teacher_url": server.url, "student_model_path": str(made.student),
        "dataset_path": str(made.texts), "output_dir": str(output), "folder_name": "run", "box_type": "black",
        "sample_size": EXAMPLES, "max_length": 48, "held_out_size": 6, "batch_size": 4, "epochs": 1, "learning_rate": 1e-3,
        "precision": "fp32", "no_cuda": True, "allow_out_of_range": True, "save_plot": False, "control": False,
        "install_deps": False, "teacher_concurrency": 3, **more,
    }  # fmt: skip


def asked_to_write(server: ChatServer) -> list[Any]:
    """The prompts of the requests that want a text, not log-probabilities."""
    bodies = zip(server.prompts, server.bodies, strict=True)
    return [prompt for prompt, body in bodies if "logprobs" not in body and "prompt_logprobs" not in body]


def written(output: Path) -> bytes:
    return (output / "run" / "teacher" / "generated.jsonl").read_bytes()


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(made: SimpleNamespace, server: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The whole run that nothing happened to, with every stage, and with a key."""
    output = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        from huggingface_hub import constants

        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setenv("OPENAI_API_KEY", KEY)
        result = distill_models(**settings(made, server, output, skip_demo=False, save_plot=True), quiet=True)
    # At the end it is asked whether it tells the log-probabilities of a prompt; it does not.
    return SimpleNamespace(output=output, result=result, bytes=written(output), asked=len(asked_to_write(server)))


def test_a_whole_run(undisturbed: SimpleNamespace) -> None:
    result, run = undisturbed.result, undisturbed.output / "run"
    lines = [json.loads(line) for line in undisturbed.bytes.splitlines()]
    assert len(lines) == undisturbed.asked == EXAMPLES
    assert [line["index"] for line in lines] == sorted(line["index"] for line in lines)
    assert all(line["kept"] for line in lines)
    cost = result.metrics["teacher_server"]
    assert cost == {
        "requests": EXAMPLES, "prompt_tokens": sum(line["prompt_tokens"] for line in lines),
        "completion_tokens": sum(line["tokens"] for line in lines), "replies_without_usage": 0,
    }  # fmt: skip
    assert cost["prompt_tokens"] > 0
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["stages"]["distill"]["metrics"]["teacher_server"] == cost
    # What needs the teacher here, or log-probabilities from it, is left out.
    assert result.teacher is None
    assert result.gap_closed is None
    assert result.verdict is not None
    assert set(json.loads((run / "demo.json").read_text(encoding="utf-8"))["texts"][0]) == {"prompt", "before", "after"}
    card = (run / "student" / "best" / "README.md").read_text(encoding="utf-8")
    assert "behind a server" in card
    assert "Gap to the teacher" not in card


def test_the_key_is_written_nowhere(undisturbed: SimpleNamespace, made: SimpleNamespace, tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    files = [path for path in undisturbed.output.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer(key="another") as closed, pytest.raises(PreconditionError, match="the key is refused") as caught:
        distill_models(**settings(made, closed, tmp_path))
    assert KEY not in f"{caught.value}{caught.value.hint}{''.join(capfd.readouterr())}"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert not (tmp_path / "run" / "data").exists()  # Found out before anything was prepared.


def test_the_order_of_replies_changes_nothing(
    made: SimpleNamespace, undisturbed: SimpleNamespace, tmp_path: Path
) -> None:
    with ChatServer() as server:
        server.delay = lambda number: 0.15 * (number % 3 == 0)
        server.fail(status=500, times=2, after=3)
        server.fail(body=b'{"choices": [{"te', cut=True, after=2)
        distill_models(**settings(made, server, tmp_path, teacher_concurrency=5), quiet=True)
        assert len(asked_to_write(server)) == EXAMPLES + 3
        assert 2 <= server.most_at_once <= 5
    assert written(tmp_path) == undisturbed.bytes


def test_texts_are_there_and_the_server_is_gone(made: SimpleNamespace, tmp_path: Path) -> None:
    with ChatServer() as server:
        distill_models(**settings(made, server, tmp_path, skip_validation=True), quiet=True)
        # Another run with the same settings takes them from the teacher cache: nothing is paid twice.
        distill_models(**settings(made, server, tmp_path, folder_name="other", skip_validation=True), quiet=True)
        assert len(server.prompts) == EXAMPLES
    again = settings(made, server, tmp_path, epochs=2, skip_validation=True)
    assert distill_models(**again, quiet=True).metrics["teacher_server"]["requests"] == EXAMPLES
    with pytest.raises(PreconditionError, match="no OpenAI-compatible server answers"):
        distill_models(**{**again, "folder_name": "third"}, quiet=True)


def test_a_server_without_usage(made: SimpleNamespace, undisturbed: SimpleNamespace, tmp_path: Path) -> None:
    with ChatServer() as server:
        server.usage = False
        result = distill_models(**settings(made, server, tmp_path, skip_validation=True), quiet=True)
    cost = result.metrics["teacher_server"]
    assert (cost["replies_without_usage"], cost["prompt_tokens"]) == (EXAMPLES, 0)
    assert cost["completion_tokens"] > 0  # Counted by the student's tokenizer.
    texts = [
        [json.loads(line)["continuation"] for line in lines.splitlines()]
        for lines in (written(tmp_path), undisturbed.bytes)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"box_type": "white"}, "--box-type white"), ({"tune_teacher": 5}, "--tune-teacher"),
        ({"teacher_precision": "int8"}, "--teacher-precision int8"), ({"teacher_streaming": "on"}, "--teacher-streaming on"),
        ({"student_model_path": None, "student_model": "teacher:2"}, "a student that is cut from it"),
        ({"teacher_url": None}, "no address is given"), ({"teacher_url": "host:1/v1"}, "no http or https address"),
        ({"teacher_model": "openai:"}, "names no model of a server"),
        ({"student_model_path": None, "student_model": "openai:tiny"}, "the student is trained here"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_needs_weights_is_refused(
    made: SimpleNamespace, server: ChatServer, tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    asked = len(server.prompts)
    chosen = {name: value for name, value in settings(made, server, tmp_path, **more).items() if value is not None}
    with pytest.raises(UsageError, match=words) as caught:
        distill_models(**chosen, quiet=True)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert not (tmp_path / "run").exists()
    assert len(server.prompts) == asked


# --- processes that end ----------------------------------------------------------------------------------------------


@pytest.fixture
def begun(
    made: SimpleNamespace, tmp_path: Path, cli_env: Callable[..., dict[str, str]]
) -> Iterator[tuple[ChatServer, subprocess.Popen[str]]]:
    """A process in the middle of its requests, with five lines written."""
    with ChatServer() as server:
        server.delay = lambda number: 0.1 if number < 8 else 30.0
        program = f"import sys; from distillkit.__main__ import main; sys.argv = ['distillkit', 'distill', '--config', {str(tmp_path / 'run.yaml')!r}]; main()"
        (tmp_path / "run.yaml").write_text(json.dumps(settings(made, server, tmp_path)), encoding="utf-8")
        process = warm_python.Popen(
            [sys.executable, "-c", program],
            env=cli_env(HF_HUB_OFFLINE="1"),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        output = tmp_path / "run" / "teacher" / "generated.jsonl"
        deadline = time.monotonic() + 240
        while not output.exists() or output.read_bytes().count(b"\n") < 5:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)
        yield server, process
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_kill_9_and_on(
    made: SimpleNamespace, undisturbed: SimpleNamespace, tmp_path: Path, begun: tuple[ChatServer, subprocess.Popen[str]]
) -> None:
    server, process = begun
    process.kill()
    process.communicate()
    left = written(tmp_path).count(b"\n")
    assert 5 <= left < EXAMPLES
    server.delay = lambda number: 0.0
    before = len(asked_to_write(server))
    distill_models(**settings(made, server, tmp_path), quiet=True)
    assert (
        len(asked_to_write(server)) - before == EXAMPLES - left
    )  # Row by row: nothing is asked again that is written.
    assert written(tmp_path) == undisturbed.bytes
    assert student_digest(tmp_path / "run") == student_digest(undisturbed.output / "run")


def test_ctrl_c_at_once(tmp_path: Path, begun: tuple[ChatServer, subprocess.Popen[str]]) -> None:
    _, process = begun
    began = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=25)[1]  # The replies that are awaited take 30 s.
    assert process.returncode == 130, said
    assert time.monotonic() - began < 20
    assert "Traceback" not in said
    assert written(tmp_path).count(b"\n") >= 5


def test_conversations_are_answered_in_the_servers_own_template(
    made: SimpleNamespace, server: ChatServer, tmp_path: Path
) -> None:
    """The server gets the turns before each last answer, and the student learns what it says, with an end of turn."""
    chats = tmp_path / "chats.jsonl"
    rows = [
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"What is in room {number}?"},
            {"role": "assistant", "content": f"Room {number} has {number + 3} chairs."},
        ]
        for number in range(60)
    ]
    chats.write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in rows))
    first = len(asked_to_write(server))
    given = {**settings(made, server, tmp_path / "runs"), "dataset_path": str(chats), "max_length": 160}
    result = distill_models(**given, quiet=True)
    assert result.student_path is not None
    asked = asked_to_write(server)[first:]
    assert len(asked) == EXAMPLES
    assert all(turns in [row[:2] for row in rows] for turns in asked)
    lines = [json.loads(line) for line in written(tmp_path / "runs").splitlines()]
    assert all(line["kept"] and line["continuation"] for line in lines)
    stats = json.loads((tmp_path / "runs" / "run" / "data" / "stats.json").read_text())
    assert stats["conversations"]["student"]["origin"] == "plain"
