"""The plan decides as the run does: over a grid of configurations, on prepared data, and in whole runs."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from tiny_models import save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer, write_texts

from distillkit import distill_models
from distillkit.console import Console
from distillkit.device.precision import choose_compute
from distillkit.dry_run.inputs import count_texts, find_models, teacher_facts, tuning_facts
from distillkit.dry_run.plan import estimate_run, plan_decisions
from distillkit.errors import DistillkitError
from distillkit.models.located import LocatedModel
from distillkit.pipeline.opening import create_or_continue
from distillkit.pipeline.running import run_pipeline
from distillkit.run import pair
from distillkit.run.context import TrainingContext
from distillkit.run.directory import RunDirectory
from distillkit.settings.parameters import Parameters
from distillkit.settings.resolve import resolve
from distillkit.storage import remove_tree
from distillkit.teachers.cache_entries import FOLDER
from distillkit.training.decisions import uses_white_box_teacher
from distillkit.training.inputs import decide

QUIET = Console(quiet=True)
USUAL: dict[str, Any] = {
    "sample_size": 12, "max_length": 24, "held_out_size": 4, "batch_size": 4, "checkpoint_interval": 4, "precision": "fp32", "sparse_size": 8,
    "no_cuda": True, "skip_validation": True, "save_plot": False, "control": False, "install_deps": False, "allow_out_of_range": True,
}  # fmt: skip
# Beside the reserve of a gigabyte: everything; the sparse targets but not the hidden states; nothing.
DISKS = {"plenty": 1 << 40, "short": (1 << 30) + 25_000, "full": 200_000}
MEMORIES = {"plenty": 1 << 40, "none": 1000}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, tokenizer = tmp_path_factory.mktemp("models"), tiny_tokenizer()
    other = tiny_tokenizer(300, bos="<s>", eos="</s>")
    save_model_folder(root / "teacher", tiny_model("llama", len(tokenizer), layers=2), tokenizer)
    save_model_folder(root / "letters", teacher_of_letters(tokenizer), tokenizer)
    save_model_folder(root / "same", tiny_model("gpt2", len(tokenizer), layers=1, hidden=16), tokenizer)
    save_model_folder(root / "other", tiny_model("gpt2", len(other), layers=1, hidden=16), other)
    write_texts(root / "texts.txt", 60, sentences=2)
    return root


def configuration(models: Path, output: Path, tokenizer: str, box: str, **changes: Any) -> Parameters:
    teacher = "letters" if box == "black" else "teacher"
    values = {
        **USUAL, "teacher_model_path": str(models / teacher), "student_model_path": str(models / tokenizer),
        "dataset_path": str(models / "texts.txt"), "output_dir": str(output), "folder_name": f"{box}-{tokenizer}",
        "box_type": box, **changes,
    }  # fmt: skip
    return resolve(values).parameters


@pytest.fixture(scope="module")
def prepared(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output directory with a prepared run for each kind."""
    output = tmp_path_factory.mktemp("runs")
    for tokenizer, box in itertools.product(("same", "other"), ("white", "black")):
        config = configuration(models, output, tokenizer, box)
        resolved = SimpleNamespace(parameters=config, as_dict=lambda config=config: vars(config), sources={}, notes=())
        run = create_or_continue(resolved, output / f"{box}-{tokenizer}")  # type: ignore[arg-type]
        run_pipeline(resolved, run, ["prepare-data"], QUIET)  # type: ignore[arg-type]
    return output


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk and a memory of a size that a test sets."""
    state = SimpleNamespace(disk=DISKS["plenty"], memory=MEMORIES["plenty"])
    usage = shutil.disk_usage

    def of(path: Any) -> Any:
        return usage(path)._replace(free=state.disk)

    monkeypatch.setattr(shutil, "disk_usage", of)
    for module in ("teachers.spread", "dry_run.inputs"):
        monkeypatch.setattr(f"distillkit.{module}.free_memory_bytes", lambda device: state.memory)
    return state


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizers, configurations and examples, of which none changes, are not read anew for every configuration of a grid."""

    def kept(function: Callable[..., Any]) -> Callable[..., Any]:
        found: dict[Any, Any] = {}

        def of(located: LocatedModel, *given: Any, **options: Any) -> Any:
            key = (located.folder, *given)
            if key not in found:
                found[key] = function(located, *given, **options)
            return found[key]

        return of

    for name in ("load_tokenizer", "context_length"):
        monkeypatch.setattr(pair, name, kept(getattr(pair, name)))
    monkeypatch.setattr(datasets, "load_from_disk", functools.cache(datasets.load_from_disk))


@dataclass(frozen=True)
class Outcome:
    """A decision in words, or why there is none."""

    cache: str | None = None
    streaming: str | None = None
    cache_bytes: int = 0
    refused: str | None = None


def of_run(config: Parameters, run: RunDirectory) -> Outcome:
    try:
        decision = decide(TrainingContext.open(config, run, QUIET)).teacher
    except DistillkitError as error:
        return Outcome(refused=f"{error.message}; {error.hint}")
    return outcome(decision)


def of_plan(config: Parameters, folder: Path) -> Outcome:
    compute, models, amounts = choose_compute(config), find_models(config, folder), count_texts(config, folder)
    assert amounts.exact
    facts = teacher_facts(config, compute, folder, models, amounts) if uses_white_box_teacher(config) else None
    tuning = tuning_facts(config, compute, folder, models, amounts)
    decisions = plan_decisions(config, compute, folder, models, amounts, facts, tuning)
    return Outcome(refused=decisions.refused) if decisions.refused else outcome(decisions.teacher)


def outcome(decision: Any) -> Outcome:
    if decision is None:
        return Outcome()
    on = "on" if decision.streaming.on else "off"
    return Outcome(
        f"{decision.cache.mode}: {decision.cache.why}", f"{on}: {decision.streaming.why}", decision.cache_bytes
    )


def grid(box: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    """(changes of the configuration, disk, memory)."""
    # How much memory is free matters where streaming is left to the program.
    places = (("auto", "plenty"), ("auto", "none"), ("on", "plenty"), ("off", "plenty"))
    modes = ("auto", "exact", "sparse", "off") if box == "white" else ("auto", "off")
    for mode, epochs, disk, (streaming, memory) in itertools.product(modes, (1, 2), DISKS, places):
        yield {"teacher_cache": mode, "epochs": epochs, "teacher_streaming": streaming}, disk, memory
    for disk, memory in itertools.product(DISKS, MEMORIES):
        yield {"tune_teacher": 4}, disk, memory
    # Sparse targets are no way out with another divergence; without the teacher there is nothing to decide.
    for epochs, disk in itertools.product((1, 2), DISKS):
        yield {"epochs": epochs, "divergence": "jsd"}, disk, "plenty"
        yield {"epochs": epochs, "alpha": 0.0, "beta": 1.0}, disk, "plenty"


@pytest.mark.parametrize("begun", [False, True], ids=["fresh", "begun"])
@pytest.mark.parametrize("box", ["white", "black"])
@pytest.mark.parametrize("tokenizer", ["same", "other"])
def test_plan_and_run_decide_alike(
    models: Path, prepared: Path, machine: SimpleNamespace, read_once: None, tokenizer: str, box: str, begun: bool
) -> None:
    folder = prepared / f"{box}-{tokenizer}"
    remove_tree(prepared / FOLDER)
    if begun and box == "white":
        config = configuration(models, prepared, tokenizer, box, teacher_cache="exact")
        loader = decide(TrainingContext.open(config, RunDirectory.open(folder), QUIET)).loader
        assert loader is not None
        cache = loader.exact_cache()
        assert cache is not None
        cache.begin()
    seen: set[str] = set()
    for changes, disk, memory in grid(box):
        try:
            config = configuration(models, prepared, tokenizer, box, **changes)
        except DistillkitError:
            continue  # Such a configuration never gets to a plan.
        machine.disk, machine.memory = DISKS[disk], MEMORIES[memory]
        run, plan = of_run(config, RunDirectory.open(folder)), of_plan(config, folder)
        assert plan == run, (changes, disk, memory)
        seen.add("refused" if run.refused else str(run.cache).partition(":")[0])
    assert seen == ({"exact", "sparse", "off", "None", "refused"} if box == "white" else {"None", "refused"})


@pytest.mark.usefixtures("known_instructions")
@pytest.mark.parametrize(
    ("tokenizer", "box", "changes"),
    [
        ("same", "white", {"epochs": 2}),
        ("same", "white", {"epochs": 1, "compile_loss": "on"}),
        ("other", "white", {"epochs": 1, "teacher_streaming": "on"}),
        ("other", "white", {"epochs": 2, "teacher_cache": "sparse", "compile_loss": "off"}),
        ("other", "white", {"epochs": 1, "alpha": 0.0}),
        ("same", "black", {"epochs": 1}),
        ("same", "white", {"epochs": 1, "control": None, "skip_validation": False, "quality_gate": "off"}),
        ("same", "white", {"epochs": 1, "control": None}),
    ],
)
def test_what_a_whole_run_did_is_what_was_planned(
    models: Path, tmp_path: Path, tokenizer: str, box: str, changes: dict[str, Any]
) -> None:
    """Planned before anything was prepared, and compared with what the run has noted in metrics.json."""
    values = {**changes, "beta": 1.0} if changes.get("alpha") == 0 else changes
    config = configuration(models, tmp_path, tokenizer, box, **values)
    folder = tmp_path / f"{box}-{tokenizer}"
    plan = estimate_run(config, folder, ["distill", "control"])
    given = {name: value for name, value in vars(config).items() if value != getattr(Parameters(), name)}
    result = distill_models(**given, quiet=True)
    decided = json.loads((folder / "metrics.json").read_text())["decisions"]
    planned = {
        name: plan[name].partition(":")[0]
        for name in ("teacher_cache", "teacher_streaming", "compiled_loss")
        if plan[name] is not None
    }
    assert planned == decided
    assert plan["refused"] is None
    control = json.loads((folder / "manifest.json").read_text())["stages"].get("control")
    made = control is not None and control["metrics"]["made"]
    assert plan["control"].startswith("on: " if made else "off: ")
    assert made is (values.get("skip_validation") is False)
    assert result.metrics["train"]["steps"] <= plan["optimizer_steps_at_most"]


@pytest.mark.parametrize("threshold", [1, 1 << 40])
def test_the_loss_is_compiled_where_planned(
    models: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch, threshold: int
) -> None:
    """`auto` goes by the logits of the whole training: counted alike by plan and run."""
    from distillkit.stages import distill
    from distillkit.training import session

    counted: list[int] = []

    def noted(context: TrainingContext, logits: int) -> bool:
        counted.append(logits)
        raise DistillkitError("far enough")

    monkeypatch.setattr(session, "compile_loss", noted)
    monkeypatch.setattr("distillkit.training.compiling.WORTH_COMPILING", threshold)
    config = configuration(models, prepared, "other", "white", teacher_cache="off", epochs=3)
    folder = prepared / "white-other"
    plan = estimate_run(config, folder, [])
    with pytest.raises(DistillkitError, match="far enough"):
        distill.run(config, RunDirectory.open(folder), QUIET)
    assert plan["compiled_loss"].startswith("on" if threshold == 1 else "off")
    assert f"{counted[0]:,} logits" in plan["compiled_loss"]
