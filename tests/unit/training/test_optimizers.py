"""Muon beside AdamW against the formulas in float64, and what each optimizer is said to remember against what it does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor, nn
from transformers.optimization import Adafactor

from distillkit.models.shape import ModelShape, model_shape
from distillkit.training.optimizers import MuonAndAdamW, muon_and_adamw, outside_the_layers, remembered_bytes

VOCABULARY, RATE, DECAY = 300, 0.01, 0.1


def model() -> Any:
    return tiny_model("llama", VOCABULARY, layers=2, hidden=32, seed=1, tie_word_embeddings=False)


def made(student: nn.Module) -> MuonAndAdamW:
    decayed = [name for name, value in student.named_parameters() if value.ndim == 2]
    return muon_and_adamw(student, RATE, DECAY, decayed)


def gradients(student: nn.Module, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    for value in student.parameters():
        value.grad = torch.randn(value.shape, generator=drawn)


def orthogonalised(matrix: Tensor) -> Tensor:
    """U V' of the singular value decomposition, which the Newton-Schulz iteration approaches."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


def plainly(start: Tensor, steps: list[Tensor], *, is_matrix: bool, decay: float) -> Tensor:
    """The weights after so many gradients, in float64: Muon with Nesterov momentum 0.95, or AdamW."""
    weights = start.double()
    first = second = torch.zeros_like(weights)
    for number, gradient in enumerate((step.double() for step in steps), 1):
        if is_matrix:
            first = 0.95 * first + 0.05 * gradient
            direction = orthogonalised(0.05 * gradient + 0.95 * first)
            step = 0.2 * max(weights.shape) ** 0.5 * direction
        else:
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            step = (first / (1 - 0.9**number)) / ((second / (1 - 0.999**number)).sqrt() + 1e-8)
        weights = weights * (1 - RATE * decay) - RATE * step
    return weights


def test_muon_for_the_matrices_and_adamw_for_the_rest() -> None:
    student = model()
    start = {name: value.detach().clone() for name, value in student.named_parameters()}
    optimizer, given = made(student), []
    for seed in (1, 2):
        gradients(student, seed)
        given.append({name: value.grad for name, value in student.named_parameters()})
        optimizer.step()
    for name, value in student.named_parameters():
        is_matrix = name.endswith(("_proj.weight",))
        assert is_matrix is (value.ndim == 2 and id(value) not in outside_the_layers(student))
        decay = DECAY if value.ndim == 2 else 0.0
        expected = plainly(start[name], [step[name] for step in given], is_matrix=is_matrix, decay=decay)
        moved = (expected - start[name].double()).norm()
        # Five steps of the iteration, in bfloat16, leave singular values between 0.7 and 1.2.
        assert (value.detach().double() - expected).norm() < (0.35 if is_matrix else 1e-5) * moved, name


def test_a_state_that_is_loaded_goes_on_as_it_was() -> None:
    student, other = model(), model()
    optimizers = made(student), made(other)
    gradients(student, 1)
    optimizers[0].step()
    other.load_state_dict(student.state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for group in optimizers[1].param_groups:
        group["lr"] = RATE / 2
    for group in optimizers[0].param_groups:
        group["lr"] = RATE / 2
    for each, optimizer in zip((student, other), optimizers, strict=True):
        gradients(each, 2)
        optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(student.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", ["adamw", "muon", "adafactor"])
def test_what_an_optimizer_remembers(name: str) -> None:
    student = model()
    shape = model_shape(student.config.to_dict())
    assert isinstance(shape, ModelShape)
    optimizer: torch.optim.Optimizer
    if name == "muon":
        optimizer = made(student)
    elif name == "adamw":
        optimizer = torch.optim.AdamW(student.parameters())
    else:
        optimizer = Adafactor(student.parameters(), scale_parameter=False, relative_step=False, lr=RATE)
    gradients(student, 1)
    optimizer.step()
    kept = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.ndim
    )
    said = remembered_bytes(name, shape)
    assert said == pytest.approx(kept, rel=0.02 if name != "adafactor" else 0.6)
    assert remembered_bytes("adamw-8bit", shape) < remembered_bytes("adamw", shape)
