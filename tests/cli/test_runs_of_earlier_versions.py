"""A run that a version with fewer parameters began goes on: what it did not have worked as its default does now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distillkit.run.directory import RunDirectory
from distillkit.run.manifest import Manifest

LATER = ("optimizer", "weight_decay", "max_grad_norm", "temperature_schedule", "model_kwargs", "threads", "lm_eval")


@pytest.fixture
def earlier(distil: Callable[..., Any]) -> RunDirectory:
    """A finished run as a version without the parameters LATER would have written it."""
    run = RunDirectory.open(distil().run_directory)
    forgotten(run.manifest)
    run.save()
    return run


def forgotten(manifest: Manifest) -> None:
    removed = 0
    for values in (manifest.config, manifest.sources, *(record.inputs for record in manifest.stages.values())):
        for name in LATER:
            removed += values.pop(name, None) is not None
    assert removed > len(LATER)


def test_it_is_finished_and_may_grow(earlier: RunDirectory, command: Callable[..., Any]) -> None:
    states = command("distill", "--run", earlier.path, "--json").states
    assert set(states.values()) == {"skipped"}
    done = command("distill", "--run", earlier.path, "--epochs", 2, "--json")
    assert done.states["distill"] == "complete"
    assert "step 4" in done.err  # where its own checkpoint is
    metrics = (earlier.path / "metrics.jsonl").read_text().splitlines()
    assert sum('"loss"' in line for line in metrics) == 8


def test_what_it_did_not_have_may_not_be_changed_behind_it(earlier: RunDirectory, command: Callable[..., Any]) -> None:
    refused = command("distill", "--run", earlier.path, "--weight-decay", 0.1, code=3)
    assert "another configuration (weight_decay: 0.0 -> 0.1)" in refused.err
