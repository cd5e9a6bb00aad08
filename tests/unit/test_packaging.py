"""What is installed: the presets travel in the wheel, and the README's commands are there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.real
def test_the_wheel_carries_the_presets(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(tmp_path), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("distillkit-*.whl"))).namelist()
    expected = {f"distillkit/_presets/{path.name}" for path in (ROOT / "presets").glob("*.yaml")}
    assert expected
    assert expected <= set(names)
    assert {"distillkit/py.typed", "distillkit/api.pyi"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "presets/"))]


def test_every_module_of_the_map_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## The source")[1]
    block = text.split("```")[1]
    for line in block.splitlines()[1:]:
        for name in line[:40].split(","):
            name = name.strip().split(" ")[0]
            if name.endswith(".py") or name.endswith("/"):
                assert (ROOT / "distillkit" / name).exists() or (ROOT / name).exists(), name
