"""NaN, infinity and divergence, wherever they come from: exit code 1 with the place and advice; nothing bad is remembered.

What a single loss does with extreme logits or without targets is in the unit tests of the losses; here it is whole runs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from settings_file import settings_file
from tiny_models import save_model_folder, tiny_model, tiny_sentencepiece_tokenizer, tiny_tokenizer, write_texts

from distillkit.cli import main as cli
from distillkit.data.stored_rows import StoredRows
from distillkit.storage import files_below
from distillkit.training import checkpoints, number_watch, trainer
from distillkit.training.trainer import DistillTrainer

Command = Callable[..., tuple[int, str]]


class Models:
    """A sound pair, and copies of its models in which single weights are no numbers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tokenizer = tiny_tokenizer(384)
        for name, seed in (("teacher", 1), ("student", 2)):
            save_model_folder(root / name, tiny_model("gpt2", 384, layers=1, hidden=16, seed=seed), self.tokenizer)
        self.texts = write_texts(root / "texts.txt", 60, sentences=2)

    def broken(self, name: str, weight: str, value: float, place: tuple[int, ...] = (3,)) -> Path:
        folder = self.root / f"{name}-{weight}-{value}"
        save_model_folder(folder, tiny_model("gpt2", 384, layers=1, hidden=16, seed=1), self.tokenizer)
        weights = load_file(folder / "model.safetensors")
        weights[weight][place] = value
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    from huggingface_hub import constants

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield Models(tmp_path_factory.mktemp("numbers"))
    torch.set_num_threads(threads)


@pytest.fixture
def command(models: Models, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """`command(epochs=2, …)` -> the exit code of a small run in tmp_path / "run", and what it said on stderr."""

    def run(*more: str, **settings: Any) -> tuple[int, str]:
        values = {
            "teacher_model_path": models.root / "teacher", "student_model_path": models.root / "student",
            "dataset_path": models.texts, "output_dir": tmp_path, "folder_name": "run", "control": False, "sample_size": 12, "max_length": 40,
            "held_out_size": 4, "batch_size": 2, "epochs": 1, "checkpoint_interval": 2, "learning_rate": 2e-3,
            "precision": "fp32", "teacher_cache": "off", **settings,
        }  # fmt: skip
        folder_name = str(values.pop("folder_name"))
        switches = ("--no-cuda", "--no-save-plot", "--no-install-deps", "--allow-out-of-range", "--skip-validation")
        capfd.readouterr()
        config = settings_file(models.root, **values)
        code = cli.main(["distill", "--config", str(config), "--folder-name", folder_name, *switches, *more])
        said = capfd.readouterr().err
        assert "Traceback" not in said
        assert "this is a defect" not in said
        return code, said

    return run


def nothing_was_committed(folder: Path) -> bool:
    run = folder / "run"
    return files_below(run / "checkpoints") == [] and not (run / "student" / "final").exists()


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("cache", ["exact", "sparse", "off"])
def test_a_teacher_that_gives_no_numbers(
    models: Models, command: Command, tmp_path: Path, cache: str, value: float
) -> None:
    """Said with what mends it, which is not the learning rate; and never remembered, for it would be shared."""
    teacher = models.broken("teacher", "transformer.ln_f.weight", value)
    code, said = command(teacher_model_path=teacher, teacher_cache=cache)
    assert code == 1
    assert "the loss became nan at step 1" in said if cache == "off" else "are not numbers" in said
    assert "teacher" in said.split("error: ")[1]
    assert "get its files again" in said or "get the model again" in said
    assert nothing_was_committed(tmp_path)
    assert not list(tmp_path.glob(".teacher-cache/*/shard-*.bin"))


@pytest.mark.parametrize("method", ["sampling", "top-k"])
def test_sparse_targets_across_tokenizers_from_a_teacher_without_numbers(
    models: Models, command: Command, tmp_path: Path, method: str
) -> None:
    pytest.importorskip("sentencepiece")
    other = tiny_sentencepiece_tokenizer(tmp_path / "tokenizer")
    student = save_model_folder(tmp_path / "llama", tiny_model("llama", len(other), layers=1, hidden=16), other)
    teacher = models.broken("teacher", "transformer.ln_f.weight", float("nan"))
    code, said = command(
        teacher_model_path=teacher, student_model_path=student, teacher_cache="sparse", sparse_method=method
    )
    assert code == 1
    assert "the teacher's probabilities are not numbers" in said
    assert not list(tmp_path.glob(".teacher-cache/*/shard-*.bin"))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_student_with_bad_weights_stops_before_the_first_step(
    models: Models, command: Command, tmp_path: Path, value: float
) -> None:
    student = models.broken("student", "transformer.h.0.mlp.c_fc.weight", value, (1, 2))
    code, said = command(student_model_path=student)
    assert code == 1
    assert re.search(
        r"after step 0 \(learning rate \S+\): the negative log-likelihood of a text of document \d+ became", said
    )
    assert nothing_was_committed(tmp_path)


def test_a_teacher_that_cannot_write(models: Models, command: Command) -> None:
    teacher = models.broken("teacher", "transformer.ln_f.weight", float("nan"))
    code, said = command(teacher_model_path=teacher, box_type="black")
    assert code == 1
    assert "the teacher's logits are not numbers" in said


def test_a_demo_with_a_model_that_cannot_write(
    models: Models, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distillkit.run.pair import ModelPair

    load = ModelPair.load_teacher

    def load_broken(self: ModelPair, *args: Any) -> Any:
        model = load(self, *args)
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))
        return model

    monkeypatch.setattr(ModelPair, "load_teacher", load_broken)
    code, said = command("--no-skip-demo", alpha=0)
    assert code == 1
    assert "a model has weights that are not numbers" in said


# --- loss, gradient, step --------------------------------------------------------------------------------------------


def poison(patch: pytest.MonkeyPatch, step: int, value: float) -> None:
    """The gradient of one weight is `value` in a step (from 1)."""
    training_step = DistillTrainer.training_step

    def poisoned(self: DistillTrainer, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = training_step(self, model, *args, **kwargs)
        if self.state.global_step == step - 1:
            next(model.parameters()).grad[0, 0] = value
        return loss

    patch.setattr(DistillTrainer, "training_step", poisoned)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """Exit code 1 with step, learning rate and examples; the last checkpoint stays and the run goes on from it."""
    with monkeypatch.context() as patch:
        poison(patch, 4, value)
        code, said = command()
    assert code == 1
    assert re.search(
        r"the gradient norm became (nan|inf) at step 4 \(learning rate 0\.00\d+, training examples \d+, \d+\)", said
    )
    assert "--learning-rate" in said
    root = tmp_path / "run" / "checkpoints"
    assert [path.name for path in root.iterdir()] == ["step-2"]
    assert checkpoints.problem(root / "step-2") is None
    last = said.splitlines()[-1]
    assert last == f"continue with: distillkit distill --run {tmp_path / 'run'}"
    assert cli.main([*last.split()[3:], "--quiet"]) == 0


def test_a_step_that_overflows_is_not_committed(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss and gradient were numbers; a signal asks for a checkpoint before anything was scored."""
    import signal

    training_step = DistillTrainer.training_step

    def overflowing(self: DistillTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = training_step(self, *args, **kwargs)
        if self.state.global_step == 2:
            for group in self.optimizer.param_groups:  # type: ignore[union-attr]
                group["lr"] = float("inf")
            signal.raise_signal(signal.SIGTERM)
        return loss

    monkeypatch.setattr(DistillTrainer, "training_step", overflowing)
    code, said = command(checkpoint_interval=2)
    assert code == 1
    assert "the student's weights are not numbers any more after step 3 (learning rate " in said
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-2"]


def test_fp16_that_never_finds_a_factor(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scaler skips steps with infinite gradients; were it to skip them all, nothing would be learnt."""
    monkeypatch.setattr(number_watch, "_MOST_SKIPPED", 3)
    step = itertools.count(1)

    class Scaler:
        """Its presence says that infinite gradients are expected."""

    norm = trainer.Trainer._get_grad_norm

    def skipped(self: Any, model: Any, grad_norm: Any = None) -> float:
        norm(self, model, grad_norm=grad_norm)
        return float("inf") if next(step) != 2 else 1.0

    get = DistillTrainer._get_grad_norm

    def with_scaler(self: DistillTrainer, model: Any, grad_norm: Any = None) -> Any:
        self.accelerator.scaler, before = Scaler(), self.accelerator.scaler
        try:
            return get(self, model, grad_norm)
        finally:
            self.accelerator.scaler = before

    monkeypatch.setattr(trainer.Trainer, "_get_grad_norm", skipped)
    monkeypatch.setattr(DistillTrainer, "_get_grad_norm", with_scaler)
    code, said = command()
    # One at step 1, a good one, and then the fourth in a row.
    assert (code, "the gradient norm became inf at step 6" in said) == (1, True)


def test_a_diverging_student_is_said_with_advice(command: Command, tmp_path: Path) -> None:
    code, said = command(learning_rate=1.0, epochs=2)
    assert code == 0
    warnings = [line for line in said.splitlines() if line.startswith("warning: ")]
    pattern = r"warning: the student gets worse: \S+ bits per byte after step \d+, \S+ at the start \(learning rate \S+\); lower --learning-rate"
    assert len([line for line in warnings if re.match(pattern, line)]) == 1
    code, said = command("--force", learning_rate=1e-3)
    assert (code, "gets worse" in said) == (0, False)


# --- texts without targets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["exact", "off"])
def test_batches_without_any_target(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    """Their loss is 0 and moves nothing; the run goes on."""
    from distillkit.stages import distill

    made = distill.teacher_part

    def without(*args: Any) -> Any:
        rows, teacher = made(*args)
        assert isinstance(rows, StoredRows)
        complete = rows._complete
        assert complete is not None

        def emptied(row: dict[str, Any], index: int) -> None:
            complete(row, index)
            if index < 6:
                row["first_target"] = len(row["student_ids"])

        return StoredRows(rows.table, rows.names, rows.fixed, emptied), teacher

    monkeypatch.setattr(distill, "teacher_part", without)
    # Alone in their batches, some of them are.
    code, said = command(batch_size=1, teacher_cache=cache)
    assert code == 0, said
    lines = [line for line in trainer_lines(tmp_path / "run") if "loss" in line]
    assert [line["loss"] for line in lines].count(0.0) == 6
    assert all(line["loss"] >= 0 and line["grad_norm"] >= 0 for line in lines)
    assert [line["grad_norm"] for line in lines].count(0.0) == 6


def trainer_lines(run: Path) -> list[dict[str, Any]]:
    from distillkit.training.metrics_log import read_metrics

    return read_metrics(run / "metrics.jsonl")
