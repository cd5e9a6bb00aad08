"""Writing a token at a time: weights are converted once, and a training around it does not notice."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from distillkit.evaluation.batched_forward import token_by_token
from distillkit.evaluation.speed import generation_speed

CPU = torch.device("cpu")


class Conversions(TorchDispatchMode):
    """Counts conversions to bf16 by the shape of what is converted."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16:
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **kwargs)


def test_weights_are_converted_once_for_all_tokens() -> None:
    model = tiny_model("llama", vocab_size=97)
    weights = {tuple(weight.shape) for name, weight in model.named_parameters() if name.endswith("down_proj.weight")}
    layers = sum(name.endswith("down_proj.weight") for name, _ in model.named_parameters())
    with Conversions() as conversions:
        generation_speed(model, [1, 2, 3], device=CPU, autocast_dtype=torch.bfloat16, new_tokens=8, repeats=3)
    assert sum(shape in weights for shape in conversions.shapes) == layers


def test_a_training_around_it_gets_its_gradients() -> None:
    model = tiny_model("llama", vocab_size=97).train()
    ids = torch.tensor([[1, 2, 3, 4]])

    def gradients(*, writes: bool) -> dict[str, torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if writes:
                with token_by_token(model, CPU, torch.bfloat16):
                    model(input_ids=ids)
            model(input_ids=ids, labels=ids).loss.backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}

    alone, around = gradients(writes=False), gradients(writes=True)
    assert set(alone) == set(around) == {name for name, _ in model.named_parameters()}
    assert all(torch.equal(alone[name], around[name]) for name in alone)
    assert model.training
