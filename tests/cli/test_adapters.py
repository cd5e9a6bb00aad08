"""Adapters from the command line's side: a cut student kept as one is usable everywhere, and a training goes on bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from distillkit.console import Console
from distillkit.models.locating import load_adapted

Distil = Callable[..., Any]
# peft asks transformers for a name that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
CUT: dict[str, Any] = {
    "student_model": "teacher:1", "adapter": "lora", "lora_rank": 4, "keep_adapter": True, "lora_dropout": 0.1,
    "lr_schedule": "constant", "warmup_fraction": 0.0, "learning_rate": 1e-2, "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def kept(distil: Distil, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A student of one of its teacher's layers, kept as an adapter and validated, and its control."""
    output = tmp_path_factory.mktemp("kept")
    return distil(
        **CUT,
        max_steps=4,
        output_dir=output,
        folder_name="run",
        control=True,
        skip_validation=False,
        quality_gate="off",
    )


def test_a_cut_student_that_is_kept_as_an_adapter(kept: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its base lies beside it, since it is nowhere else; validation and reports have read both; so does a run that is moved."""
    from peft import AutoPeftModelForCausalLM

    folder = kept.student_path
    named = Path(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"])
    assert named == folder / "base"
    assert len(AutoModelForCausalLM.from_pretrained(named).transformer.h) == 1
    assert kept.after["bits_per_byte"] != kept.before["bits_per_byte"]
    assert kept.after["parameters"] == kept.before["parameters"]
    assert kept.control["bits_per_byte"] != kept.before["bits_per_byte"]
    ids = torch.arange(10)[None]
    with torch.no_grad():
        expected = AutoPeftModelForCausalLM.from_pretrained(folder)(ids).logits
        kept.run_directory.rename(kept.run_directory.with_name("moved"))
        try:
            moved = kept.run_directory.with_name("moved") / folder.relative_to(kept.run_directory)
            found = load_adapted(moved, torch.float32, Console(quiet=True))(ids).logits
        finally:
            kept.run_directory.with_name("moved").rename(kept.run_directory)
    assert (found - expected).abs().max() < 1e-5 * expected.std()


def test_a_training_goes_on_bit_for_bit(distil: Distil, kept: Any, tmp_path: Path) -> None:
    """Two steps and then two more are four, dropout of the adapter included."""
    for steps in (2, 4):
        result = distil(**CUT, max_steps=steps, output_dir=tmp_path, folder_name="run")
    one, other = (load_file(run.run_directory / "student/final/adapter_model.safetensors") for run in (result, kept))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_export_merges_it_and_another_run_begins_with_it(
    kept: Any, distil: Distil, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from distillkit.exporting.chosen_student import choose_student
    from distillkit.exporting.export import export
    from distillkit.run.directory import RunDirectory

    monkeypatch.setenv("DISTILLKIT_CACHE", str(tmp_path / "cache"))
    run = RunDirectory.open(kept.run_directory)
    exported = export(choose_student(run, None, Console(quiet=True)), "safetensors", None, None, Console(quiet=True))
    assert (exported.path / "model.safetensors").is_file()
    assert not list(exported.path.glob("adapter_*"))
    begun = distil(student_model_path=kept.student_path, teacher_model_path=exported.path, max_steps=1)
    start = load_file(exported.path / "model.safetensors")
    assert load_file(begun.student_path / "model.safetensors").keys() == start.keys()
