"""A disk that is really full, and files that may not grow: said with path and bytes, tidied up, and mended by space."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

KB = 1 << 10
# The free space is looked at before the training, which would then not even begin; here the disk fills up later.
LATER = {
    "distillkit.training.inputs._check_disk": "@small_runs.unchecked",
    "distillkit.teachers.loader.free_disk_bytes": "@small_runs.plenty",
}


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes at `folder`."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def begin(scene: Any, output: Path) -> list[str]:
    """The state before the command in `output`, which stays the folder that it is; the command."""
    for path in output.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if scene.state is not None:
        shutil.copytree(scene.state, output, dirs_exist_ok=True)
    return [word.replace("{output}", str(output)) for word in scene.command]


def error_of(done: Any) -> str:
    """The one line that says what is wrong."""
    assert done.code == 1, done.said
    assert "Traceback" not in done.said
    (line,) = [line for line in done.said.splitlines() if line.startswith("error:")]
    return line


def files(output: Path) -> set[Path]:
    return {path for path in output.rglob("*") if path.is_file()}


def check_tidy_and_mended(workshop: Any, scene: Any, before: set[Path]) -> None:
    """Nothing half written is left, nothing that was there has gone, and with space the result is the usual one."""
    left = files(workshop.output)
    assert not [path for path in left if path.name.startswith(".tmp")]
    assert before <= left
    (workshop.output / "ballast").unlink(missing_ok=True)
    again = workshop.again(scene)
    assert again.code == 0, again.said
    assert workshop.differences(scene) == []


@pytest.mark.parametrize(
    ("name", "spares"),
    [
        # Free kilobytes: less and less fits, from the teacher's cache to the final student.
        ("exact", (12, 200, 700)),
        ("black", (8, 330)),
        ("prepare-data", (4, 16)),
    ],
)
def test_the_disk_fills_up(faultless_workshop: Any, name: str, spares: tuple[int, ...]) -> None:
    workshop = faultless_workshop
    scene = workshop.scene(name)
    scene = replace(scene, constants={**scene.constants, **LATER})
    places = set()
    with small_disk(workshop.output, 16 << 20):
        for spare in spares:
            command = begin(scene, workshop.output)
            before = files(workshop.output)
            ballast = workshop.output / "ballast"
            ballast.write_bytes(bytes(shutil.disk_usage(workshop.output).free - spare * KB))
            done = workshop.program.run(command, constants=scene.constants)
            found = re.search(
                rf"no space left while writing ({workshop.output}\S*?), (about )?[\d,]+ bytes are needed",
                error_of(done),
            )
            assert found, (spare, done.said)
            places.add(found[1])
            check_tidy_and_mended(workshop, scene, before)
    assert len(places) > (len(spares) > 1)


def test_too_little_space_is_seen_before_the_training(faultless_workshop: Any) -> None:
    workshop = faultless_workshop
    scene = workshop.scene("off")
    with small_disk(workshop.output, 16 << 20):
        command = begin(scene, workshop.output)
        before = files(workshop.output)
        (workshop.output / "ballast").write_bytes(bytes(shutil.disk_usage(workshop.output).free - 400 * KB))
        line = error_of(workshop.program.run(command, constants=scene.constants))
        assert re.search(
            r"out/run: [\d.]+ \wB of disk are needed for checkpoints and students, [\d.]+ kB are free", line
        ), line
        assert not list((workshop.output / "run").glob("checkpoints/*"))
        check_tidy_and_mended(workshop, scene, before)


@pytest.mark.parametrize(("name", "limits"), [("sparse", (1500, 40_000, 90_000)), ("prepare-data", (500, 2_000))])
def test_files_may_not_grow(faultless_workshop: Any, name: str, limits: tuple[int, ...]) -> None:
    """RLIMIT_FSIZE, which needs no rights: every library meets it where it writes, with EFBIG."""
    workshop = faultless_workshop
    scene = workshop.scene(name)
    for limit in limits:
        command = scene.set_up(workshop.output)
        before = files(workshop.output)
        line = error_of(workshop.program.run(command, constants=scene.constants, limit=limit))
        assert str(workshop.output) in line
        # torch keeps the reason to itself, and here there is space.
        assert re.search(r"[\d,]+ bytes are needed|torch could not write", line), (limit, line)
        check_tidy_and_mended(workshop, scene, before)
