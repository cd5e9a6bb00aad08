"""`distillkit export` from the command line: what is written, where, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import warm_python
from transformers import AutoModelForCausalLM, AutoTokenizer

from distillkit.cli.main import main
from distillkit.exporting.check import read_gguf

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def run(distil: Any) -> Path:
    return distil().run_directory


def export(capsys: pytest.CaptureFixture[str], run: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit code, the JSON object."""
    code = main(["export", "--run", str(run), *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_gguf_in_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(run.iterdir())
    code, said = export(capsys, run, "--dtype", "q8_0")
    assert code == 0, said
    path = run / "export" / f"{run.name}-best-q8_0.gguf"
    assert said["path"] == str(path)
    assert said["bytes"] == path.stat().st_size
    check = said["check"]
    assert check["bits_per_byte"]["exported"] == pytest.approx(check["bits_per_byte"]["student"], rel=0.02)
    assert check["same_tokens"] == check["texts"] > 0
    assert sorted(run.iterdir()) == sorted([*before, run / "export"])
    # Not plain from_pretrained, which takes every GPT-2 to have 1024 positions.
    loaded: Any = read_gguf(path)
    assert (loaded.config.n_layer, loaded.config.n_positions) == (1, 256)
    # Again: ours is replaced. Another format has another name.
    assert export(capsys, run, "--dtype", "q8_0")[0] == 0
    assert export(capsys, run)[1]["path"].endswith("-f16.gguf")


@pytest.mark.parametrize("dtype", [None, "bf16", "f16"])
def test_a_folder_of_its_own(run: Path, tmp_path: Path, dtype: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "copy"
    given = [] if dtype is None else ["--dtype", dtype]
    code, said = export(capsys, run, "--format", "safetensors", "--which", "final", "--out", out, *given)
    assert code == 0, said
    origin = run / "student" / "final"
    names = {path.relative_to(origin) for path in origin.rglob("*")}
    assert {path.relative_to(out) for path in out.rglob("*")} == names
    changed = {name for name in names if (out / name).read_bytes() != (origin / name).read_bytes()}
    assert {str(name) for name in changed} == (set() if dtype is None else {"config.json", "model.safetensors"})
    student: Any = AutoModelForCausalLM.from_pretrained(origin, dtype=torch.float32)
    copy: Any = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    wanted = {None: torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    assert copy.dtype == wanted
    for name, weights in student.state_dict().items():
        assert torch.equal(copy.state_dict()[name], weights.to(wanted)), name
    assert AutoTokenizer.from_pretrained(out)("the map")["input_ids"]


def test_what_is_there_is_kept(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    code, said = export(capsys, run, "--format", "safetensors", "--out", tmp_path / "full")
    assert code == 2
    assert "is there already" in said["error"]
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"
    assert export(capsys, run, "--format", "safetensors", "--out", tmp_path / "full", "--overwrite")[0] == 0
    assert not (tmp_path / "full" / "notes.txt").exists()
    other = tmp_path / "other.gguf"
    other.write_bytes(b"mine")
    assert export(capsys, run, "--out", other)[0] == 2
    assert other.read_bytes() == b"mine"
    assert export(capsys, run, "--out", other, "--overwrite")[0] == 0
    assert export(capsys, run, "--out", other)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--format", "onnx"], 2, "--format: 'onnx' is not known"),
        (["--dtype", "q4_k_m"], 2, "--dtype: 'q4_k_m' is not one of gguf's"),
        (["--which", "worst"], 2, "--which: 'worst' is not known"),
        (["--out", "model.bin"], 2, "does not end in .gguf"),
        (["--out", "{run}/student/best.gguf"], 2, "lies in the run directory"),
        (["--format", "safetensors", "--out", "{run}/.."], 2, "holds the run directory"),
    ],
)
def test_refusals(run: Path, arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, said = export(capsys, run, *(argument.format(run=run) for argument in arguments))
    assert (found, said["exit_code"]) == (code, code)
    assert words in said["error"]
    assert said["hint"]


def test_a_damaged_student_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    weights = copy / "student" / "best" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"!!!!")
    code, said = export(capsys, copy, "--dtype", "q8_0")
    assert code == 3
    assert "the student is damaged" in said["error"]
    assert said["continue"].startswith("distillkit distill --run")
    # What cannot be exported now can be tried again as it was asked for.
    shutil.copytree(run, copy, dirs_exist_ok=True)
    shutil.rmtree(copy / "data" / "test")
    code, said = export(capsys, copy, "--dtype", "q8_0", "--which", "best")
    assert (code, said["continue"]) == (3, f"distillkit export --format gguf --dtype q8_0 --which best --run {copy}")


def test_a_full_disk(run: Path, tmp_path: Path, cli_env: Any) -> None:
    """No file may grow beyond 20 kB: the same error as a full disk, and nothing is left."""
    program = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "runpy.run_module('distillkit', run_name='__main__', alter_sys=True)"
    )
    done = warm_python.run(
        [sys.executable, "-c", program, "export", "--run", str(run), "--dtype", "f32", "--out", "out/model.gguf"],
        cwd=tmp_path, env=cli_env(HF_HUB_OFFLINE="1"), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "no space left while writing out/model.gguf" in done.stderr
    assert not list((tmp_path / "out").iterdir())
