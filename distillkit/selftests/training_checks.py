"""Self-tests of the training itself: a few steps of the real trainer on a tiny pair of models, and its checkpoint."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from distillkit.console import Console
from distillkit.data.batching import DistillationCollator
from distillkit.device.precision import Compute
from distillkit.interrupts import check_interrupted
from distillkit.losses.chunked import StudentOutput
from distillkit.losses.mapped_mass import MappedMass
from distillkit.losses.target_rows import IGNORED
from distillkit.losses.tempered import SoftLoss
from distillkit.selftests.checking import require, require_close
from distillkit.selftests.formulas import TrainedRow, objective
from distillkit.settings.parameters import Parameters
from distillkit.silence_libraries import silence_transformers
from distillkit.teachers.common_targets import CommonTokens
from distillkit.teachers.live import LiveTeacher
from distillkit.training import checkpoints
from distillkit.training.arguments import training_arguments
from distillkit.training.metrics_log import MetricsLog, read_metrics
from distillkit.training.objectives import Objective, SoftObjective, SoftSettings, Terms, Weights
from distillkit.training.progress import Progress
from distillkit.training.trainer import DistillTrainer

_VOCABULARY = 32
_FINGERPRINT = "self-test"
# Of the largest number in a gradient: rounding of fp32, and of bf16 through a whole model.
_TOLERANCES = {None: 1e-4, torch.bfloat16: 0.1}
_LENGTHS = (12, 9, 5, 12, 7, 10, 12, 6)


def steps(device: torch.device, autocast: torch.dtype | None) -> None:
    """In every step the trainer gives the weights the gradient of the formula, and the student learns."""
    with tempfile.TemporaryDirectory() as temporary:
        training = _Training(Path(temporary), device, autocast, epochs=12)
        checked = _GradientCheck(training, _TOLERANCES[autocast])
        training.trainer.add_callback(checked)
        training.run()
        losses = [line["loss"] for line in read_metrics(Path(temporary) / "metrics.jsonl") if "loss" in line]
    require(checked.steps == 24, f"{checked.steps} steps instead of 24")
    first, last = sum(losses[:2]) / 2, sum(losses[-2:]) / 2  # The first epoch and the last.
    require(last < 0.85 * first, f"the loss went from {first:.3f} to {last:.3f}")


def checkpoint_round_trip(device: torch.device) -> None:
    """A committed checkpoint is whole, holds the trained weights, and a damaged one is noticed."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as temporary:
        training = _Training(Path(temporary), device, None, epochs=1)
        training.run()
        root = Path(temporary) / "checkpoints"
        folder = checkpoints.newest_valid(root, _FINGERPRINT).path
        if folder is None:
            require(False, "the trainer has left no valid checkpoint")
            return
        stored = load_file(folder / "model.safetensors")
        for name, weights in training.student.named_parameters():
            require(torch.equal(stored[name], weights.detach().cpu()), f"the checkpoint holds another {name}")
        with (folder / "model.safetensors").open("r+b") as stream:
            stream.seek(-1, 2)
            last = stream.read(1)
            stream.seek(-1, 2)
            stream.write(bytes([last[0] ^ 0xFF]))
        require(checkpoints.problem(folder) is not None, "a damaged checkpoint counts as whole")


def _tiny_model(hidden: int, *, tied: bool) -> Any:
    config = LlamaConfig(
        vocab_size=_VOCABULARY, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config)


class _Texts(Dataset[dict[str, Any]]):
    """Random texts of different lengths."""

    def __init__(self) -> None:
        texts = [torch.randint(0, _VOCABULARY, (length,)).tolist() for length in _LENGTHS]
        self.rows = [{"id": i, "student_ids": ids, "first_target": 1} for i, ids in enumerate(texts)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


class _Recorded:
    """An objective that keeps the batches it was called with."""

    def __init__(self, tested: Objective) -> None:
        self.tested = tested
        self.batches: list[dict[str, Any]] = []

    @property
    def mass(self) -> MappedMass:
        return self.tested.mass

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return self.tested.prepare(batch)

    def __call__(self, student: StudentOutput, batch: Mapping[str, Any], weights: Weights) -> Terms:
        on_processor: Any = send_to_device(dict(batch), "cpu")
        self.batches.append(on_processor)
        return self.tested(student, batch, weights)


class _Training:
    """A distillation as the stage `distill` runs it: two micro-batches a step, a live teacher, a tied student.

    Args:
        folder: an existing folder, for checkpoints and metrics.
        autocast: the format of matrix products, None for plain fp32.
    """

    def __init__(self, folder: Path, device: torch.device, autocast: torch.dtype | None, *, epochs: int) -> None:
        self.config = Parameters(
            batch_size=2, gradient_accumulation=2, epochs=epochs, learning_rate=1e-2, checkpoint_interval=100,
            warmup_fraction=0.0, lr_schedule="constant",
        )  # fmt: skip
        self.student, self.teacher = _tiny_model(16, tied=True).to(device), _tiny_model(32, tied=False)
        with torch.no_grad():
            self.teacher.get_output_embeddings().weight.mul_(20)  # Random weights would have no opinion.
        compute = Compute(device, autocast, torch.float32)
        live = LiveTeacher(self.teacher, compute)
        common = torch.ones(_VOCABULARY, dtype=torch.bool)
        soft = SoftSettings(SoftLoss(self.config.temperature))
        self.recorded = _Recorded(SoftObjective(CommonTokens(live, common), soft))
        root = folder / "checkpoints"
        root.mkdir()
        texts = _Texts()
        with Console(quiet=True).progress("training") as display:
            self.trainer = DistillTrainer(
                model=self.student,
                args=training_arguments(self.config, compute, root, len(texts), resumed=False),
                train_dataset=texts,
                eval_dataset=texts,
                data_collator=DistillationCollator(white_box=True, aligned=False, prepare=self.recorded.prepare),
                objective=self.recorded,
                alpha=self.config.alpha,
                beta=self.config.beta,
                schedule=self.config.lr_schedule,
                lengths=list(_LENGTHS),
                held_out_score=lambda *_: 1.0,
                fingerprint=_FINGERPRINT,
                on_best=None,
                metrics_log=MetricsLog(folder / "metrics.jsonl", 0),
                progress=Progress(),
                display=display,
            )

    def run(self) -> None:
        """Train to the end.

        Raises:
            CheckFailed: a callback found something wrong.
            Interrupted: a signal arrived; the trainer stops after a step.
        """
        with silence_transformers():
            self.trainer.train()
        check_interrupted()

    def expected_gradients(self) -> dict[str, Tensor]:
        """By name, for the weights as they are and the batches since the last call, clipped as the trainer does."""
        student, teacher = (_in_double(model) for model in (self.student, self.teacher))
        batches, self.recorded.batches = self.recorded.batches, []
        rows = [row for batch in batches for row in _rows(batch, student, teacher)]
        config = self.config
        objective(rows, config.alpha, config.beta, config.temperature, len(rows)).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        return {name: weights.grad for name, weights in student.named_parameters() if weights.grad is not None}


def _in_double(model: Any) -> Any:
    """A copy in float64, on the processor, without what the trainer has changed about the model."""
    copy = type(model)(model.config).double().eval()
    copy.load_state_dict({name: value.detach().cpu() for name, value in model.state_dict().items()})
    return copy


def _rows(batch: Mapping[str, Any], student: Any, teacher: Any) -> Iterator[TrainedRow]:
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    logits = student(**inputs).logits
    with torch.no_grad():
        probabilities = torch.softmax(teacher(**inputs).logits, -1)
    for text, position in (batch["labels"][:, 1:] != IGNORED).nonzero().tolist():
        target = int(batch["labels"][text, position + 1])
        yield TrainedRow(logits[text, position], target, probabilities[text, position])


class _GradientCheck(TrainerCallback):
    """Compares the gradients of every step, before the optimizer uses them."""

    def __init__(self, training: _Training, tolerance: float) -> None:
        self.training = training
        self.tolerance = tolerance
        self.steps = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        expected = self.training.expected_gradients()
        for name, weights in self.training.student.named_parameters():
            gradient = weights.grad
            require(gradient is not None, f"{name} has no gradient")
            require_close(f"gradient of {name} in step {self.steps + 1}", gradient, expected[name], self.tolerance)
        self.steps += 1


@contextlib.contextmanager
def unchanged_random_states() -> Iterator[None]:
    """The random states of Python, numpy and torch are afterwards what they were: the trainer seeds them all."""
    import random

    import numpy as np

    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
