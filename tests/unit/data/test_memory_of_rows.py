"""Texts must not fill the memory that belongs to the models: `benchmarks/memory/rows.py`, on a small scale."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "memory" / "rows.py"
# As Python lists these rows would take 100 MB; all texts that a run may have, 50 GB. What is measured does not grow with them.
TEXTS, LENGTH, MOST_MB = 100, 4096, 45


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_rows_take_no_memory_that_grows_with_the_texts() -> None:
    command = [sys.executable, "-P", str(SCRIPT), "--texts", str(TEXTS), "--length", str(LENGTH)]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert measured["building_mb"] < MOST_MB
    assert measured["reading_mb"] < MOST_MB
