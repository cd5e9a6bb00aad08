"""The workshop that the tests of this folder share: one process with the libraries loaded, that forks for each fault."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # The modules that these tests share; see tests/conftest.py.


@pytest.fixture(scope="session")
def workshop(faultless_workshop: Any) -> Any:
    """See `fault_loop.Workshop`."""
    if not faultless_workshop.program.can_fail:
        pytest.skip("needs a C compiler (cc, gcc or clang)")
    return faultless_workshop


@pytest.fixture(scope="session")
def faultless_workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The workshop also where calls cannot be made to fail one by one."""
    if sys.platform != "linux":
        pytest.skip("LD_PRELOAD, tmpfs and the like are Linux's")
    from fault_loop import SHORT, Workshop

    import distillkit

    folder = tmp_path_factory.mktemp("faults")
    package = str(Path(distillkit.__file__).resolve().parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": package,
        "HF_HOME": str(folder / "hf"),
        "NO_COLOR": "1",
        "COLUMNS": "1000",
    }
    made = Workshop(folder, environment, SHORT)
    yield made
    made.close()
