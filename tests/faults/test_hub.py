"""Models from a Hub that is unknown, gated, failing, cut off or away.

Every download is a process of its own: where the Hub is, and whether it may be asked, is read when its library is
imported.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import warm_python
from hub_server import HubServer
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer

PROGRAM = """
import json, sys, time
from distillkit.console import Console
from distillkit.errors import DistillkitError
from distillkit.interrupts import graceful_signals
from distillkit.models.references import parse_reference
model, how = sys.argv[1:]
# Pauses before another attempt, the Hub library's own too, need not last in a test.
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.02))
console, reference = Console(), parse_reference(model)
try:
    with graceful_signals():
        if how == "download":
            from distillkit.models.hub import download_model
            folder, revision = download_model(reference.repo_id, reference.revision, console)
            found = {"folder": str(folder), "revision": revision}
        else:
            import torch
            from distillkit.models.loading import load_model, load_tokenizer
            from distillkit.models.locating import locate
            located = locate(reference, console, role="teacher")
            found = {"folder": str(located.folder), "revision": located.revision, "fingerprint": located.fingerprint()}
        if how == "load":
            model = load_model(located, dtype=torch.float32, console=console)
            found["parameters"] = sum(parameter.numel() for parameter in model.parameters())
            found["tokens"] = len(load_tokenizer(located))
    print(json.dumps(found))
except DistillkitError as error:
    print(json.dumps({"error": error.message, "hint": error.hint, "code": error.exit_code}))
"""
Get = Callable[..., dict[str, Any]]


@pytest.fixture
def served(hub_server: HubServer) -> HubServer:
    """A small GPT-2 as `org/model`, beside the weights in other formats that real repositories carry."""
    folder = hub_server.folder("org/model")
    save_model_folder(folder, tiny_model("gpt2", 384, hidden=128), tiny_tokenizer(384))
    for name in ("pytorch_model.bin", "tf_model.h5", "consolidated.safetensors", "onnx/decoder.onnx", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"?" * 50_000)
    return hub_server


@pytest.fixture
def get(hub_server: HubServer, cli_env: Callable[..., dict[str, str]]) -> Get:
    """`get("org/model", "load", HF_TOKEN=…)` -> what the program found or raised, and its stderr."""

    def run(model: str, how: str = "download", **variables: str) -> dict[str, Any]:
        environment = cli_env(**{"HF_ENDPOINT": hub_server.url, "NO_PROXY": "127.0.0.1", **variables})
        command = [sys.executable, "-c", PROGRAM, model, how]
        done = warm_python.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1, done.stdout
        return json.loads(done.stdout) | {"stderr": done.stderr}

    return run


def downloads(server: HubServer) -> dict[str, int]:
    """Bytes that went out, by file."""
    found: dict[str, int] = {}
    for request in server.requests:
        if request.method == "GET" and "/resolve/" in request.path and request.bytes_sent:
            name = request.path.split("/resolve/")[1].split("/", 1)[1]
            found[name] = found.get(name, 0) + request.bytes_sent
    return found


def test_only_what_loading_needs_is_fetched_and_only_once(served: HubServer, get: Get) -> None:
    found = get("org/model", "load")
    assert found["revision"] == served.commit("org/model")
    assert (found["tokens"], found["parameters"] > 400_000) == (384, True)
    assert downloads(served).keys() == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "README.md",
    }  # fmt: skip
    assert "downloading org/model" in found["stderr"]
    assert "Traceback" not in found["stderr"]
    # Nothing but the console speaks: no bar of another library, no advice about tokens.
    assert all(line.startswith(("downloading org/model",)) for line in found["stderr"].splitlines()), found["stderr"]
    before = downloads(served)
    assert get("org/model", "locate")["fingerprint"] == found["fingerprint"]
    assert downloads(served) == before


def test_a_name_without_organisation_and_a_revision(served: HubServer, get: Get) -> None:
    save_model_folder(served.folder("solo"), tiny_model("llama", 300), tiny_tokenizer(300))
    commit = served.commit("solo")
    assert get("solo")["revision"] == commit
    assert get(f"solo@{commit}")["revision"] == commit
    found = get("solo@v9")
    assert (found["code"], found["error"]) == (3, "model solo: no revision 'v9' on the Hub")
    assert "'@'" in found["hint"]


def test_weights_in_several_files(served: HubServer, get: Get) -> None:
    folder = served.folder("org/sharded")
    model = tiny_model("llama", 300, hidden=64)
    model.save_pretrained(folder, max_shard_size="50KB")
    tiny_tokenizer(300).save_pretrained(folder)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    found = get("org/sharded", "load")
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert not [name for name in downloads(served) if name == "consolidated.safetensors"]


@pytest.mark.parametrize(
    ("model", "words", "hints"),
    [
        ("org/none", "model org/none: not on the Hub, or private", ["--teacher-model-path", "--preset quickstart"]),
        ("org/closed", "model org/closed: access has to be asked for", ["hf auth login", "HF_TOKEN", "quickstart"]),
        ("org/pickles", "only as pickle (pytorch_model.bin)", ["safetensors", "--teacher-model-path"]),
        ("org/empty", "org/empty has no safetensors weights", ["--teacher-model-path"]),
        ("org/code", "brings its own Python code", ["--trust-remote-code"]),
    ],
)
def test_what_cannot_be_had_is_said(served: HubServer, get: Get, model: str, words: str, hints: list[str]) -> None:
    for name in ("closed", "code"):
        save_model_folder(served.folder(f"org/{name}"), tiny_model("gpt2", 300), tiny_tokenizer(300))
    config = served.folder("org/code") / "config.json"
    own_code = {"auto_map": {"AutoConfig": "configuration_mine.Mine"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | own_code))
    (served.folder("org/code") / "configuration_mine.py").write_text("raise SystemExit('the code ran')")
    (served.folder("org/pickles") / "config.json").write_text("{}")
    (served.folder("org/pickles") / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    (served.folder("org/empty") / "config.json").write_text("{}")
    served.gate("org/closed", token="hf_letmein")
    # Code of its own and damage are seen in the files, what else is wrong by the downloader.
    found = get(model, "locate" if model == "org/code" else "download")
    assert found.get("code") == 3, found
    assert words in found["error"]
    assert "\n" not in found["error"]
    assert all(hint in found["hint"] for hint in hints)
    assert "pytorch_model.bin" not in downloads(served)


def test_a_gated_model_with_a_token(served: HubServer, get: Get) -> None:
    served.gate("org/model", token="hf_letmein")
    wrong = get("org/model", HF_TOKEN="hf_someoneelse")
    assert wrong["code"] == 3
    assert "it is gated" in wrong["error"]
    assert "hf_someoneelse" not in json.dumps(wrong)
    assert get("org/model", HF_TOKEN="hf_letmein")["revision"] == served.commit("org/model")


@pytest.mark.parametrize("path", ["/api/models/org/model", "config.json", "model.safetensors"])
def test_the_hub_may_fail_for_a_moment(served: HubServer, get: Get, path: str) -> None:
    served.fail(path, status=503, times=2)
    found = get("org/model")
    assert found.get("revision") == served.commit("org/model"), found
    assert [request.status for request in served.requests].count(503) == 2


def test_the_hub_fails_for_good(served: HubServer, get: Get) -> None:
    served.fail("", status=500, times=None)
    found = get("org/model")
    assert found["code"] == 3
    assert found["error"] == (
        "model org/model: the Hub answered with status 500, and no complete copy of it is on this machine"
    )
    assert "--preset quickstart" in found["hint"]
    assert "trying again in" in found["stderr"]
    assert len(served.requests) < 60


def test_only_the_weights_fail_for_good(served: HubServer, get: Get) -> None:
    """What is then in the cache has a configuration and no weights: it is no copy that could be used."""
    served.fail("model.safetensors", status=500, times=None)
    for variables in ({}, {"HF_HUB_OFFLINE": "1"}):
        found = get("org/model", **variables)
        assert found.get("code") == 3, found
        assert "org/model" in found["error"]
    served.heal()
    assert get("org/model")["revision"] == served.commit("org/model")


def test_connections_cut_in_mid_download(served: HubServer, get: Get) -> None:
    size = (served.folder("org/model") / "model.safetensors").stat().st_size
    served.cut("model.safetensors", after_bytes=size // 3, times=2)
    fetched = Path(get("org/model")["folder"]) / "model.safetensors"
    assert fetched.read_bytes() == (served.folder("org/model") / "model.safetensors").read_bytes()
    # What had come through was not fetched again, up to the blocks that were in flight.
    assert size <= downloads(served)["model.safetensors"] < 2 * size


def test_connections_cut_again_and_again(served: HubServer, get: Get) -> None:
    served.cut("model.safetensors", after_bytes=1000, times=None)
    found = get("org/model")
    assert found["code"] == 3
    assert "model org/model: the Hub cannot be reached" in found["error"]


@pytest.mark.parametrize("how", ["offline", "away", "failing"])
def test_a_copy_on_this_machine_is_used(served: HubServer, get: Get, how: str) -> None:
    first = get("org/model")
    served.requests.clear()
    if how == "failing":
        served.fail("", status=502, times=None)
    variables = {"offline": {"HF_HUB_OFFLINE": "1"}, "away": {"HF_ENDPOINT": "http://127.0.0.1:9"}, "failing": {}}
    found = get("org/model", **variables[how])
    assert (found.get("folder"), found.get("revision")) == (first["folder"], first["revision"]), found
    assert "the copy in the cache is used" in found["stderr"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "offline mode is on (HF_HUB_OFFLINE)"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub cannot be reached"),
    ],
)
def test_without_network_and_without_a_copy(get: Get, variables: dict[str, str], words: str) -> None:
    found = get("org/model", **variables)
    assert (found["code"], found["error"]) == (
        3, f"model org/model: {words}, and no complete copy of it is on this machine",
    )  # fmt: skip
    assert "--teacher-model-path" in found["hint"]
    assert "--preset quickstart" in found["hint"]


def test_a_shard_is_missing_from_the_copy(served: HubServer, get: Get) -> None:
    folder = served.folder("org/sharded")
    tiny_model("llama", 300, hidden=64).save_pretrained(folder, max_shard_size="50KB")
    tiny_tokenizer(300).save_pretrained(folder)
    found = get("org/sharded")
    shard = sorted(Path(found["folder"]).glob("model-*.safetensors"))[1]
    shard.resolve().unlink()
    shard.unlink()
    offline = get("org/sharded", HF_HUB_OFFLINE="1")
    assert offline.get("code") == 3, offline
    assert "no complete copy of it is on this machine" in offline["error"]
    # With the Hub in reach the shard simply comes again.
    assert get("org/sharded")["folder"] == found["folder"]
    assert shard.is_file()


def test_truncated_weights_in_the_copy(served: HubServer, get: Get) -> None:
    weights = Path(get("org/model")["folder"]) / "model.safetensors"
    os.truncate(weights.resolve(), weights.stat().st_size // 2)
    found = get("org/model", "locate")
    assert found.get("code") == 3, found
    assert f"{weights} is damaged" in found["error"]
    assert found["hint"] == f"delete {weights.resolve()} and run again"
    weights.resolve().unlink()
    assert get("org/model", "load")["tokens"] == 384


def test_a_cache_that_cannot_be_written(served: HubServer, get: Get, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    found = get("org/model", HF_HOME=str(tmp_path / "file"))
    assert found.get("code") == 1, found
    assert "cannot be stored in the Hub's cache: Not a directory" in found["error"]
    assert "HF_HOME" in found["hint"]


def test_what_answers_is_no_hub(hub_server: HubServer, get: Get) -> None:
    """A login page of the network answers everything with a page and a status of 200."""

    class LoginPage(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Please log in to the network</html>")

    with ThreadingHTTPServer(("127.0.0.1", 0), LoginPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = get("org/model", HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert found.get("code") == 3, found
    assert "is no model hub" in found["error"]
    assert "HF_ENDPOINT" in found["hint"]


def test_a_signal_ends_a_download(served: HubServer, cli_env: Callable[..., dict[str, str]]) -> None:
    """SIGTERM in mid-transfer: 143, and no retry."""
    big = served.folder("org/model") / "model.safetensors"
    # Appended zeros make it no valid file, which does not matter for its transfer.
    with big.open("ab") as stream:
        stream.truncate(400_000_000)
    environment = cli_env(HF_ENDPOINT=served.url, NO_PROXY="127.0.0.1")
    process = warm_python.Popen(
        [sys.executable, "-c", PROGRAM, "org/model", "download"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    started = threading.Event()
    watch = threading.Thread(target=_wait_for_transfer, args=(served, started), daemon=True)
    watch.start()
    assert started.wait(60)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert json.loads(out).get("code") == 143, (out, err)
    assert "trying again" not in err


def _wait_for_transfer(server: HubServer, started: threading.Event) -> None:
    while not any(r.method == "GET" and "config.json" in r.path for r in list(server.requests)):
        time.sleep(0.02)
    time.sleep(0.1)
    started.set()
