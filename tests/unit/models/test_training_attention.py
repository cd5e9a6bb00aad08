"""Attention in training on a processor computes in fp32, within half-precision autocast too, and is what it was afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distillkit.models.training_attention import quick_attention
from distillkit.training.activation_memory import keep_inputs_only
from tests.tiny_models import tiny_model

BF16 = torch.bfloat16


class Watch(TorchFunctionMode):
    """Sees in which format torch's attention gets its queries; whether autocast would change it."""

    def __init__(self) -> None:
        super().__init__()
        self.formats: list[tuple[torch.dtype, bool]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            self.formats.append((args[0].dtype, torch.is_autocast_enabled("cpu")))
        return func(*args, **kwargs or {})


def states(*, heads: int = 4, groups: int = 2, seed: int = 0) -> list[Tensor]:
    """Queries [2, heads, 7, 8], keys and values of `groups`, in fp32 with numbers that bf16 can express."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, heads, 7, 8), *[(2, groups, 7, 8)] * 2]
    return [torch.randn(shape, generator=generator).to(BF16).float() for shape in shapes]


def reference(query: Tensor, key: Tensor, value: Tensor, readable: Tensor) -> Tensor:
    """[B, T, H, D] attention, head by head and place by place, in float64."""
    B, H, T, D = query.shape
    rows = []
    for b in range(B):
        for t in range(T):
            for h in range(H):
                group = h // (H // key.shape[1])
                seen = [s for s in range(T) if readable[b, t, s]]
                scores = torch.stack([query[b, h, t] @ key[b, group, s] / D**0.5 for s in seen])
                weights = torch.softmax(scores, 0)
                rows.append(sum(w * value[b, group, s] for w, s in zip(weights, seen, strict=True)))
    return torch.stack([row for row in rows if isinstance(row, Tensor)]).view(B, T, H, D)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    module = torch.nn.Module()
    module.num_key_value_groups = query.shape[1] // key.shape[1]
    return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask)[0]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_value_and_gradient_are_those_of_an_exact_attention(autocast: bool, padded: bool) -> None:
    readable = torch.ones(2, 7, 7, dtype=torch.bool).tril()
    if padded:
        readable[1, :, 4:] = False
    given = states()
    # Under autocast the rotary embedding makes fp32 of what it turns.
    inputs = [state.clone().to(torch.float32 if autocast else BF16).requires_grad_() for state in given]
    exact = [state.double().requires_grad_() for state in given]
    wanted = reference(*exact, readable)
    upstream = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(9)).to(BF16)
    wanted.backward(upstream.double())
    with quick_attention(), torch.autocast("cpu", dtype=BF16) if autocast else nullcontext():
        mixed = attend(*inputs, readable[:, None] if padded else None)
    assert mixed.dtype == BF16
    # Right but for the rounding of the result: of the output always, of gradients where the inputs are bf16.
    torch.testing.assert_close(mixed.double(), wanted, rtol=2**-8, atol=1e-6)
    mixed.backward(upstream)
    for got, right in zip(inputs, exact, strict=True):
        assert got.grad is not None
        assert right.grad is not None
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if autocast else {"rtol": 2**-8, "atol": 1e-5}
        torch.testing.assert_close(got.grad.double(), right.grad, **tolerance)


@contextmanager
def watched() -> Iterator[Watch]:
    watch = Watch()
    with quick_attention(), watch, torch.autocast("cpu", dtype=BF16):
        yield watch


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_only_where_a_gradient_is_needed_and_the_text_is_short(family: str) -> None:
    model = tiny_model(family, 40)
    ids = torch.arange(12).view(2, 6)
    with watched() as watch:
        model(input_ids=ids)
    assert set(watch.formats) == {(torch.float32, False)}
    with watched() as watch, torch.no_grad():
        model(input_ids=ids)
    assert watch.formats
    assert all(autocast for _, autocast in watch.formats)
    with watched() as watch:
        model(input_ids=torch.arange(192).view(1, 192) % 40)
    assert all(autocast for _, autocast in watch.formats)


def test_layers_that_are_computed_again_attend_alike() -> None:
    gradients = []
    for again in (False, True):
        model = tiny_model("llama", 40, use_cache=False).train()
        if again:
            keep_inputs_only(model, "a llama")
        ids = torch.arange(12).view(2, 6)
        with quick_attention():
            with torch.autocast("cpu", dtype=BF16):
                loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_a_mask_of_numbers_is_added_in_fp32() -> None:
    query, key, value = (state.to(BF16).requires_grad_() for state in states(groups=4))
    forbidden = torch.ones(7, 7, dtype=torch.bool).triu(1)
    mask = torch.zeros(7, 7, dtype=BF16).masked_fill(forbidden, torch.finfo(BF16).min)[None, None]
    with quick_attention():
        mixed = attend(query, key, value, mask)
    wanted = reference(query.double(), key.double(), value.double(), ~forbidden.expand(2, 7, 7))
    torch.testing.assert_close(mixed.double(), wanted, rtol=2**-8, atol=1e-6)


def test_transformers_has_its_own_function_again() -> None:
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with quick_attention():
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
    with pytest.raises(ZeroDivisionError), quick_attention():
        _ = 1 / 0
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
