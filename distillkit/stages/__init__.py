"""The stages of a run. Each is one module that reads top-down; none imports another.

A stage module has
    run(config, run, console, **options) -> StageResult
and, where its result depends on more than parameters and earlier stages,
    extra_inputs(config, run) -> dict[str, str],
and, where some of its options only show something and leave its record alone (`StageOption.shows_only`),
    show(config, run, console, **options) -> dict[str, Any], for the object of --json.
All that passes between stages lies in the run directory. To add a stage, write the module and register it in `STAGES`:
its subcommand, its place in a whole `distill`, `--force` and `--dry-run` follow.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from distillkit.settings import declared
from distillkit.settings.parameters import Parameters

if TYPE_CHECKING:
    from distillkit.run.directory import RunDirectory


@dataclass(frozen=True)
class StageOption:
    """An option of a stage's own subcommand that is no parameter of a run.

    Attributes:
        keyword: the argument of the stage's `run` that receives it, where it is given.
        flag: `--prompt`.
        help: one phrase without a full stop.
        type: of the value; a list where the option may be repeated.
        default_words: what applies without it, shown as the default; None where the help shows none.
        shows_only: where it is given, the stage's `show` answers, and the run stays as it is.
    """

    keyword: str
    flag: str
    help: str
    type: Any
    default_words: str | None = None
    shows_only: bool = False


@dataclass(frozen=True)
class StageSpec:
    """Where a stage stands, and what its subcommand looks like.

    Attributes:
        module: its module name in this package.
        help: what it does, as a sentence; the help of its subcommand.
        after: the stages whose results it reads; they must be complete.
        reads: the same of those that a run need not have; what is there is read.
        cheap: it only derives from earlier results, so it is redone without asking when those changed.
        wanted: whether a whole `distill` with this configuration runs it.
        not_made: why it will decide to make nothing, as far as that is known before it runs; for a run or a new one (None).
        parameters: those that it reads besides the ones that are declared to affect it.
        options: what only its subcommand takes.
        sets: what its subcommand sets in the configuration of the run.
        then: stages that its subcommand brings up to date afterwards, where the run has them.
        shows_result: its subcommand ends with the table before/after.
    """

    module: str
    help: str
    after: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    cheap: bool = False
    wanted: Callable[[Parameters], bool] = lambda config: True
    not_made: Callable[[Parameters, RunDirectory | None], str | None] = lambda config, run: None
    parameters: tuple[str, ...] = ()
    options: tuple[StageOption, ...] = ()
    sets: Mapping[str, Any] = field(default_factory=dict)
    then: tuple[str, ...] = ()
    shows_result: bool = False


def _no_control(config: Parameters, run: RunDirectory | None) -> str | None:
    from distillkit.training.control import early_choice

    choice = early_choice(config, run)
    return None if choice is None or choice.on else choice.why


STAGES: dict[str, StageSpec] = {
    "check-env": StageSpec(
        "check_env",
        "Check libraries, device, memory, disk and model hub; install what is missing; self-test with --run-tests.",
        cheap=True,
        parameters=(
            "teacher_model", "student_model", "box_type", "teacher_model_path", "student_model_path", "no_cuda",
            "output_dir", "install_deps", "run_tests", "allow_out_of_range", "precision", "teacher_precision", "optimizer",
            "report_to", "lm_eval", "threads",
        ),
    ),
    "prepare-data": StageSpec(
        "prepare_data",
        "Read, clean and split the texts and encode them for both models. Starts a new run where settings are given.",
        # How a student that is cut from the teacher is measured; the result is recorded, so none of them undoes it later.
        parameters=(
            "output_dir", "folder_name", "install_deps", "allow_out_of_range", "trust_remote_code", "no_cuda", "precision",
            "teacher_streaming", "attn_implementation", "threads",
        ),
    ),
    "tune": StageSpec(
        "tune",
        "Search the learning rate, temperature, alpha and divergence that this student needs. Starts a new run where "
        "settings are given.",
        after=("prepare-data",),
        cheap=True,  # Its journal keeps what still holds.
        wanted=lambda config: False,
        parameters=declared.names_with_flag(),
        options=(
            StageOption("minutes", "--minutes", "time for all trials together", float, "20, without --trials"),
            StageOption("trials", "--trials", "at most so many trials", int, "as many as the time allows"),
        ),
    ),
    "distill": StageSpec(
        "distill",
        "Bring a run to its end: prepare the data, train the student, then validate, plot and, with --no-skip-demo, demo.",
        after=("prepare-data",),
        parameters=declared.names_with_flag(),
    ),
    "control": StageSpec(
        "control",
        "Train the same student without the teacher, so that validate can say what the teacher was worth.",
        after=("prepare-data", "distill"),
        # It takes long, but whoever redid the training has agreed to that; what still holds of it is kept.
        cheap=True,
        wanted=lambda config: config.control is not False,
        not_made=_no_control,
        parameters=("threads",),
        sets={"control": True},
        then=("validate", "plot"),
        shows_result=True,
    ),
    "validate": StageSpec(
        "validate",
        "Measure teacher, student before and student after on held-out texts, and say whether the student improved.",
        after=("prepare-data", "distill"),
        reads=("control",),
        cheap=True,
        wanted=lambda config: not config.skip_validation,
        parameters=("threads",),
        shows_result=True,
    ),
    "demo": StageSpec(
        "demo",
        "Show side by side what teacher, student before and student after write.",
        after=("prepare-data", "distill"),
        cheap=True,
        wanted=lambda config: not config.skip_demo,
        parameters=("threads",),
        options=(
            StageOption(
                "prompts", "--prompt", "a text to continue, only shown and not recorded; may be repeated", list[str],
                "held-out texts", shows_only=True,
            ),
            StageOption(
                "interactive", "--interactive", "continue what is typed, or comes through a pipe, line by line", bool,
                shows_only=True,
            ),
            StageOption("teacher", "--teacher/--no-teacher", "whether the teacher takes part", bool, "where it fits into memory"),
            StageOption("temperature", "--temperature", "0: always the likeliest token", float, "0.7"),
            StageOption("top_p", "--top-p", "the share of probability that is drawn from", float, "0.9"),
            StageOption("top_k", "--top-k", "draw from so many of the likeliest tokens, 0: from all", int, "0"),
            StageOption(
                "repetition_penalty", "--repetition-penalty", "makes tokens that were there before less likely, 1: none", float,
                "1",
            ),
            StageOption("new_tokens", "--new-tokens", "a text is cut off after so many", int, "48"),
            StageOption("seed", "--seed", "of the draws, the same for every model and text", int, "that of the run"),
        ),
    ),
    "plot": StageSpec(
        "plot",
        "Draw the loss, the held-out score, the learning rate and the comparison before/after.",
        after=("distill",),
        reads=("control",),
        cheap=True,
        wanted=lambda config: config.save_plot,
    ),
}  # fmt: skip


def wanted_stages(config: Parameters) -> list[str]:
    """The stages of a whole `distill`, in order."""
    return [name for name, spec in STAGES.items() if spec.wanted(config)]


def stage_parameters(stage: str) -> tuple[str, ...]:
    """The parameters that the subcommand of a stage takes as options, in the order of the declaration."""
    return tuple(
        name
        for name in declared.names_with_flag()
        if name in STAGES[stage].parameters or declared.facts(name).affects == stage
    )


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves behind.

    Attributes:
        outputs: the files it wrote, below the run directory.
        metrics: figures for the manifest and for --json.
        summary: one line for people.
        gate_failure: why the quality gate fails, if it does; in `metrics` too, so that it is known when the complete
            stage is skipped.
    """

    outputs: list[Path]
    metrics: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
    gate_failure: str | None = None


def load_stage(name: str) -> ModuleType:
    """Import the module of a stage; this is when torch and transformers get loaded."""
    return importlib.import_module(f"distillkit.stages.{STAGES[name].module}")
