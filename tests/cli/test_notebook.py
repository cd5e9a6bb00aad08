"""docs/quickstart.ipynb, run from top to bottom in a kernel of its own; variables put a tiny pair in the place of the preset's models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "quickstart.ipynb"


def said(cell: Any) -> str:
    """What a cell printed."""
    return "".join(output.get("text", "") for output in cell.outputs if output.get("name") == "stdout")


def test_the_committed_notebook_is_valid_and_holds_no_output() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


# The client's own sockets and loops are closed when they are collected.
@pytest.mark.filterwarnings("default")
def test_every_cell_runs(
    pair: SimpleNamespace,
    small: dict[str, Any],
    tmp_path: Path,
    cli_env: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nbclient = pytest.importorskip("nbclient")
    values = {**small, "teacher_model_path": pair.teacher, "student_model_path": pair.student, "dataset_path": pair.texts,
        "skip_validation": False, "skip_demo": True, "learning_rate": 3e-2}  # fmt: skip
    variables = {f"DISTILLKIT_{name.upper()}": str(value) for name, value in values.items()}
    own = {"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    for name, value in cli_env(HF_HUB_OFFLINE="1", **own, **variables).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    _install, distil, figures, report, use = (cell for cell in notebook.cells if cell.cell_type == "code")
    assert (tmp_path / "output" / "notebook" / "student" / "best" / "config.json").is_file()
    assert any("validate:" in output.get("text", "") for output in distil.outputs)
    assert said(figures).startswith("improved: ")
    assert "after " in said(figures)
    assert "teacher " in said(figures)
    assert len(report.outputs) == 1, report.outputs
    assert "&lt;!doctype html&gt;" in report.outputs[0]["data"]["text/html"].lower()
    assert said(use).startswith("The function returns")
