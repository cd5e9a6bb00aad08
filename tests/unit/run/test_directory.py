"""The run directory, its manifest and its lock."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from distillkit.errors import PreconditionError, UsageError
from distillkit.run.directory import RunDirectory, find_run, list_runs
from distillkit.run.manifest import load_manifest
from distillkit.settings.resolve import resolve


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "out" / "one", resolve({"epochs": 3}))


def test_round_trip_and_latest(run: RunDirectory, tmp_path: Path) -> None:
    again = find_run(None, tmp_path / "out")
    assert again.path.name == "one"
    assert again.manifest.config["epochs"] == 3
    assert resolve(config_file=run.path / "config.yaml").parameters.epochs == 3
    assert list_runs(tmp_path / "out") == [run.path]


def test_the_directory_can_be_moved(run: RunDirectory, tmp_path: Path) -> None:
    with run.locked():
        (run.path / "out.txt").write_text("x")
        run.begin_stage("plot", {"a": "1"})
        run.finish_stage("plot", [run.path / "out.txt"], {})
    shutil.move(run.path, tmp_path / "elsewhere")
    moved = RunDirectory.open(tmp_path / "elsewhere")
    assert moved.output_problem("plot") is None
    assert [output.path for output in moved.manifest.stages["plot"].outputs] == ["out.txt"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "{", "corrupt"),
        (lambda text: "[]", "schema version"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 99'), "schema version 99"),
        (lambda text: text.replace('"epochs": 3', '"epochs": 4'), "edited"),
        (lambda text: json.dumps({**json.loads(text), "surprise": 1}), "corrupt"),
        (lambda text: text.encode().replace(b"epochs", b"\xff\xfe").decode("latin-1"), "edited"),
    ],
)
def test_manifest_is_never_trusted_blindly(run: RunDirectory, change, words: str) -> None:
    path = run.path / "manifest.json"
    path.write_text(change(path.read_text()))
    before = path.read_bytes()
    with pytest.raises(PreconditionError, match=words) as caught:
        load_manifest(run.path)
    assert caught.value.exit_code == 3
    assert "manifest.json" in caught.value.message
    assert path.read_bytes() == before


def test_second_process_is_refused_and_a_killed_one_frees_the_lock(run: RunDirectory) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from distillkit.run.directory import RunDirectory
        with RunDirectory.open(Path(sys.argv[1])).locked():
            print("held", flush=True)
            time.sleep(60)
        """
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(run.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(PreconditionError, match=f"process {holder.pid} on .* for \\d+ s"), run.locked():
            pass
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout:
            holder.stdout.close()
    with run.locked():
        pass


def test_missing_runs(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError):
        find_run(None, tmp_path)
    with pytest.raises(UsageError):
        find_run("nope", tmp_path)


def test_foreign_folder_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.txt").write_text("precious")
    with pytest.raises(PreconditionError, match="already exists"):
        RunDirectory.create(folder, resolve({}))
    assert [path.name for path in folder.iterdir()] == ["chapter1.txt"]


def test_a_run_that_was_cut_off_while_it_was_made_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / ".tmp-manifest.json").write_text("{")
    made = RunDirectory.create(folder, resolve({}))
    (folder / "config.yaml").unlink()
    (tmp_path / "latest").write_text("another\n")
    made.complete_creation()
    assert (folder / "config.yaml").exists()
    assert (tmp_path / "latest").read_text() == "mine\n"
    assert made.tidy() == []
