"""The tests' own Hub answers huggingface_hub and datasets as the real one does, faults included."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow
import pytest
import warm_python
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pyarrow import parquet

SNAPSHOT = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], allow_patterns=["*.json", "*.safetensors"]))
"""
LOAD_DATASET = """
import json
from datasets import load_dataset
print(json.dumps(load_dataset("org/rows", split="train")["text"][:]))
"""


def run_python(code, env, *arguments):
    done = warm_python.run(
        [sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def request(url, method="GET", **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers, method=method), timeout=30) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


@pytest.fixture
def model(hub_server):
    folder = hub_server.folder("org/model")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4000)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"graph")
    return folder


@pytest.fixture
def api(hub_server):
    return HfApi(endpoint=hub_server.url, token=False)


def test_listing(hub_server, model, api):
    info = api.model_info("org/model")
    assert info.sha == hub_server.commit("org/model")
    assert len(info.sha) == 40
    assert api.list_repo_files("org/model", revision=info.sha) == [
        "config.json", "model.safetensors", "onnx/model.onnx", "pytorch_model.bin",
    ]  # fmt: skip
    assert [entry.path for entry in api.list_repo_tree("org/model")] == [
        "config.json", "model.safetensors", "onnx", "pytorch_model.bin",
    ]  # fmt: skip
    assert [entry.path for entry in api.list_repo_tree("org/model", "onnx")] == ["onnx/model.onnx"]
    found = api.get_paths_info("org/model", ["onnx", "model.safetensors", "absent"])
    assert {entry.path for entry in found} == {"onnx", "model.safetensors"}
    assert next(entry for entry in found if entry.path == "model.safetensors").lfs.size == 1_024_000
    before = info.sha
    (model / "config.json").write_text("{}")
    assert api.model_info("org/model").sha != before


def test_a_name_without_organisation(hub_server, api, tmp_path):
    (hub_server.folder("solo") / "config.json").write_text("{}")
    assert api.model_info("solo").id == "solo"
    path = hf_hub_download("solo", "config.json", endpoint=hub_server.url, cache_dir=tmp_path)
    assert Path(path).read_text() == "{}"


def test_snapshot_in_a_subprocess(hub_server, model, cli_env):
    env = cli_env(HF_ENDPOINT=hub_server.url)
    folder = run_python(SNAPSHOT, env, "org/model")
    assert folder.endswith(f"snapshots/{hub_server.commit('org/model')}")
    assert hub_server.bytes_served("model.safetensors") == 1_024_000
    assert hub_server.bytes_served("pytorch_model.bin") == 0
    run_python(SNAPSHOT, env, "org/model")
    assert hub_server.bytes_served("model.safetensors") == 1_024_000


def test_a_cut_transfer_is_resumed(hub_server, model, tmp_path):
    # The client keeps whole blocks of 10 MiB and goes on after the last of them.
    size, block = 12 << 20, 10 << 20
    (model / "model.safetensors").write_bytes(bytes(range(256)) * (size // 256))
    hub_server.cut("model.safetensors", after_bytes=11 << 20)
    path = hf_hub_download("org/model", "model.safetensors", endpoint=hub_server.url, cache_dir=tmp_path)
    assert Path(path).read_bytes() == (model / "model.safetensors").read_bytes()
    transfers = [r for r in hub_server.requests if r.method == "GET" and "model.safetensors" in r.path]
    assert [(r.status, r.bytes_sent) for r in transfers] == [(200, 11 << 20), (206, size - block)]
    assert hub_server.bytes_served("model.safetensors") == (11 << 20) + size - block


def test_injected_failures(hub_server, model, api):
    hub_server.fail("/api/models/org/model", status=503, times=2)
    for _ in range(2):
        with pytest.raises(HfHubHTTPError) as caught:
            api.model_info("org/model")
        assert caught.value.response.status_code == 503
    assert api.model_info("org/model").id == "org/model"
    hub_server.fail("org/model", status=500, times=None)
    for _ in range(3):
        with pytest.raises(HfHubHTTPError):
            api.model_info("org/model")
    hub_server.heal()
    assert api.model_info("org/model").id == "org/model"
    assert [r.status for r in hub_server.requests] == [503, 503, 200, 500, 500, 500, 200]


def test_refusals(hub_server, model, api, tmp_path):
    def download(name, token=False):
        return hf_hub_download("org/model", name, endpoint=hub_server.url, cache_dir=tmp_path, token=token)

    with pytest.raises(RepositoryNotFoundError) as caught:
        api.model_info("org/absent")
    assert caught.value.response.status_code == 401
    with pytest.raises(RepositoryNotFoundError) as caught:
        api.model_info("org/absent", token="hf_somebody")
    assert caught.value.response.status_code == 404
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/model", revision="v9")
    with pytest.raises(EntryNotFoundError):
        download("absent.json")
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("org/model", "absent"))
    hub_server.gate("org/model", token="hf_letmein")
    assert api.model_info("org/model").gated == "auto"
    with pytest.raises(GatedRepoError) as caught:
        download("config.json")
    assert caught.value.response.status_code == 401
    with pytest.raises(GatedRepoError) as caught:
        download("config.json", token="hf_somebody")
    assert caught.value.response.status_code == 403
    assert download("config.json", token="hf_letmein")


def test_paths_do_not_lead_out(hub_server, model):
    (hub_server.root / "secret.txt").write_text("secret")
    for path in (
        "/org/model/resolve/main/../../../secret.txt",
        "/../secret/resolve/main/x",
        "/%2e%2e/%2e%2e/resolve/main/x",
    ):
        status, content, _ = request(hub_server.url + path)
        assert (status in (401, 404), b"secret" in content.lower()) == (True, False), path


def test_ranges(hub_server, model):
    url = f"{hub_server.url}/org/model/resolve/main/model.safetensors"
    content = (model / "model.safetensors").read_bytes()
    for header, expected in (
        ("bytes=10-19", content[10:20]),
        ("bytes=-7", content[-7:]),
        ("bytes=1023990-", content[-10:]),
    ):
        assert request(url, Range=header)[:2] == (206, expected)
    assert request(url, Range="bytes=1024000-")[0] == 416
    headers = request(url, "HEAD")[2]
    assert headers["Content-Length"] == headers["X-Linked-Size"] == "1024000"
    assert headers["ETag"] == headers["X-Linked-Etag"]


def test_one_column_of_a_parquet_file(hub_server):
    folder = hub_server.folder("org/rows", "datasets")
    columns = {"text": [f"row {i}" for i in range(500)], "picture": [bytes([i % 251]) * 4000 for i in range(500)]}
    parquet.write_table(pyarrow.table(columns), folder / "train.parquet", compression="none", use_dictionary=False)
    files = HfFileSystem(endpoint=hub_server.url, token=False, skip_instance_cache=True)
    assert files.glob("datasets/org/rows/*.parquet") == ["datasets/org/rows/train.parquet"]
    with files.open("datasets/org/rows/train.parquet", "rb", cache_type="none") as stream:
        table = parquet.ParquetFile(stream).read(columns=["text"])
    assert table.column("text").to_pylist() == columns["text"]
    assert 0 < hub_server.bytes_served("train.parquet") < 200_000


def test_datasets_in_a_subprocess(hub_server, cli_env):
    folder = hub_server.folder("org/rows", "datasets")
    (folder / "data").mkdir()
    rows = [f"row {i}" for i in range(5)]
    (folder / "data" / "train.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    assert json.loads(run_python(LOAD_DATASET, cli_env(HF_ENDPOINT=hub_server.url))) == rows
