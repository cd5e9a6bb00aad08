"""`distillkit push` against a Hub on this machine: what arrives there, who may, and that doing it again is safe."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hub_server import HubServer
from huggingface_hub import ModelCard, constants
from safetensors.numpy import save_file

from distillkit.cli.main import main
from distillkit.console import Console
from distillkit.exporting.adapter_files import adapter_files
from distillkit.models.locating import load_adapted

TOKEN = "hf_mine"


@pytest.fixture
def hub(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A Hub that lets this process write as `org`."""
    hub_server.let_write(TOKEN, "org")
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.url)
    template = f"{hub_server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("distillkit.hub._FIRST_PAUSE_SECONDS", 0.0)
    return hub_server


@pytest.fixture(scope="module")
def run(distil: Any) -> Path:
    return distil().run_directory


def push(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON object, standard error."""
    code = main(["push", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def test_a_student_arrives(hub: HubServer, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = push(capsys, "org/mine", "--run", run)
    assert code == 0, said
    folder, student = hub.folder("org/mine"), run / "student" / "best"
    assert said["private"]
    assert "org/mine" in hub.writing.private
    assert said["commit"] == hub.commit("org/mine")
    wanted = {path.relative_to(student).as_posix() for path in student.rglob("*") if path.is_file()}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == wanted | {".gitattributes"}
    for name in wanted - {"README.md"}:
        assert (folder / name).read_bytes() == (student / name).read_bytes(), name
    card: Any = ModelCard.load(folder / "README.md")
    assert "distillkit" in (card.data.tags or ())
    assert 'from_pretrained("org/mine")' in card.text
    assert "path/to/this/folder" not in card.text
    # Nothing of this machine goes there.
    assert str(run.parent) not in (folder / "README.md").read_text(encoding="utf-8")


def test_again_changes_nothing(hub: HubServer, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = push(capsys, "org/mine", "--run", run, "--public")[1]
    assert not first["private"]
    uploads, commits = hub.writing.uploads, list(hub.writing.commits)
    second = push(capsys, "org/mine", "--run", run)[1]
    assert second["status"] == "complete", second
    assert second == first | {"private": False}
    assert (hub.writing.uploads, hub.writing.commits) == (uploads, commits)


def test_another_student_replaces_the_weights(hub: HubServer, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(capsys, "org/mine", "--run", run)
    folder = hub.folder("org/mine")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"of a larger one")
    (folder / "notes.txt").write_text("mine")
    (folder / "old.gguf").write_bytes(b"GGUF")
    code, said, err = push(capsys, "org/mine", "--run", run, "--which", "final")
    assert code == 0
    assert not (folder / "model-00001-of-00002.safetensors").exists()
    assert (folder / "notes.txt").read_text() == "mine"
    assert said["left"] == ["old.gguf"]
    assert "old.gguf" in err


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_student_kept_as_an_adapter_arrives_with_the_model_that_it_is_for(
    hub: HubServer,
    run: Path,
    pair: SimpleNamespace,
    distil: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The Hub has not that model: it lies here, in a folder. What the card says loads the student."""
    monkeypatch.setenv("DISTILLKIT_CACHE", str(tmp_path / "cache"))
    adapter = {"adapter": "lora", "lora_rank": 2, "learning_rate": 1e-2, "max_steps": 2, "keep_adapter": True}
    kept = distil(**adapter).run_directory
    push(capsys, "org/mine", "--run", run)
    folder = hub.folder("org/mine")
    code, said, _ = push(capsys, "org/mine", "--run", kept)
    assert code == 0, said
    # Of the whole student that was there nothing is left that would be taken for this one.
    assert not {"model.safetensors", "config.json"} & {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "base/config.json", "base/model.safetensors"} <= {
        *said["files"]
    }
    for path in folder.rglob("*.*"):
        places = (str(kept.parent).encode(), str(pair.root).encode())
        assert not path.is_file() or not any(place in path.read_bytes() for place in places), path
    card: Any = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "peft"
    loaded: dict[str, Any] = {}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    exec(card.text.partition("```python\n")[2].partition("```")[0], loaded)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        expected = load_adapted(kept / "student" / "best", torch.float32, Console(quiet=True))(ids).logits
        found = loaded["model"].eval()(ids).logits
        with loaded["model"].disable_adapter():
            assert (found - loaded["model"](ids).logits).abs().max() > 1e-3
    assert (found - expected).abs().max() < 1e-5 * expected.std()
    assert loaded["tokenizer"]("a")["input_ids"]
    push(capsys, "org/mine", "--run", run)
    assert not {"adapter_config.json", "adapter_model.safetensors"} & {path.name for path in folder.iterdir()}
    assert not (folder / "base" / "config.json").exists()


def test_an_adapter_of_a_model_on_the_hub_goes_alone(tmp_path: Path) -> None:
    tokens = np.zeros((2, 2), dtype=np.float32)
    save_file({"base_model.model.a.lora_A.weight": tokens}, tmp_path / "adapter_model.safetensors")
    named = {"base_model_name_or_path": "some/model", "revision": "0123abc"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(named))
    made = adapter_files(cast("Any", SimpleNamespace(written=tmp_path)))
    assert made.base is None
    assert made.files["adapter_config.json"] == tmp_path / "adapter_config.json"
    assert len(made.files) == 2


def test_what_is_not_ours_is_left_alone(hub: HubServer, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = hub.folder("org/theirs")
    (folder / "README.md").write_text("---\ntags: [other]\n---\n# mine\n")
    (folder / "model.safetensors").write_bytes(b"precious")
    code, said, _ = push(capsys, "org/theirs", "--run", run)
    assert (code, said["exit_code"]) == (2, 2)
    assert "did not put there" in said["error"]
    assert (folder / "model.safetensors").read_bytes() == b"precious"
    assert push(capsys, "org/theirs", "--run", run, "--overwrite")[0] == 0
    assert (folder / "model.safetensors").read_bytes() == (run / "student/best/model.safetensors").read_bytes()


def test_refusals_in_one_line(
    hub: HubServer, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object) -> str:
        code, said, _ = push(capsys, *arguments, "--run", run)
        assert code == said["exit_code"] != 0
        assert "\n" not in said["error"]
        assert said["hint"]
        return f"{code} {said['error']}"

    assert refused("a/b/c").startswith("2 'a/b/c' is no name of a repository")
    assert refused("others/model").startswith("3 others/model: this access token may not write there")
    assert refused("org/x", "--gguf", "q8_0").startswith("2 --gguf q8_0")
    hub.fail("/api/", status=503, times=None)
    assert refused("org/mine").startswith("3 org/mine: the Hub answered with status 503; nothing was changed there")
    hub.heal()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert refused("org/new").startswith("3 org/new: the Hub does not accept the access token")
    monkeypatch.delenv("HF_TOKEN")
    assert refused("org/new").startswith("3 there is no access token")
    assert not list((hub.root / "models").glob("org/*"))


def test_a_failed_upload_leaves_no_commit(hub: HubServer, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.fail("/commit/", status=500, times=1)
    code, said, _ = push(capsys, "org/mine", "--run", run)
    assert code == 0, said  # asked again
    assert len(hub.writing.commits) == 1


def test_gguf_goes_along(hub: HubServer, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gguf = pytest.importorskip("gguf")
    assert main(["export", "--run", str(run), "--dtype", "q8_0", "--quiet"]) == 0
    capsys.readouterr()
    path = run / "export" / f"{run.name}-best-q8_0.gguf"
    code, said, _ = push(capsys, "org/mine", "--run", run, "--gguf", "q8_0")
    assert code == 0, said
    assert path.name in said["files"]
    assert (hub.folder("org/mine") / path.name).read_bytes() == path.read_bytes()
    assert f"--hf-file {path.name}" in (hub.folder("org/mine") / "README.md").read_text(encoding="utf-8")
    # A file of another student would be taken for this one.
    other = path.with_name("other.gguf")
    writer = gguf.GGUFWriter(other, "gpt2")
    writer.add_string("distillkit.student", "of another one")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    code, said, _ = push(capsys, "org/mine", "--run", run, "--gguf", other)
    other.unlink()
    assert code == 3
    assert "made of another student" in said["error"]
