"""What is installed: the presets and the marker of typed packages travel in the wheel, the tests do not."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.real
def test_the_wheel_carries_presets_and_types(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(tmp_path), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("distillkit-*.whl"))).namelist()
    expected = {f"distillkit/_presets/{path.name}" for path in (ROOT / "presets").glob("*.yaml")}
    assert expected
    assert expected | {"distillkit/py.typed"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "presets/"))]
