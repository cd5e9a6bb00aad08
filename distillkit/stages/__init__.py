"""The stages of a run. Each is one module that reads top-down; none imports another.

A stage module has
    run(config, run, console, **options) -> StageResult
and, where its result depends on more than parameters and earlier stages,
    extra_inputs(config, run) -> dict[str, str].
All that passes between stages lies in the run directory. To add a stage: write the module and add a line here.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class StageSpec:
    """Where a stage stands.

    Attributes:
        module: its module name in this package.
        after: the stages whose results it reads; they must be complete.
        cheap: it only derives from earlier results, so it is redone without asking when those changed.
    """

    module: str
    after: tuple[str, ...] = ()
    cheap: bool = False


STAGES: dict[str, StageSpec] = {
    "check-env": StageSpec("check_env", cheap=True),
    "prepare-data": StageSpec("prepare_data"),
    "distill": StageSpec("distill", after=("prepare-data",)),
    "validate": StageSpec("validate", after=("prepare-data", "distill"), cheap=True),
    "demo": StageSpec("demo", after=("prepare-data", "distill"), cheap=True),
    "plot": StageSpec("plot", after=("distill",), cheap=True),
}


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves behind.

    Attributes:
        outputs: the files it wrote, below the run directory.
        metrics: figures for the manifest and for --json.
        summary: one line for people.
        gate_failure: why the quality gate fails, if it does.
    """

    outputs: list[Path]
    metrics: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
    gate_failure: str | None = None


def load_stage(name: str) -> ModuleType:
    """Import the module of a stage; this is when torch and transformers get loaded."""
    return importlib.import_module(f"distillkit.stages.{STAGES[name].module}")
