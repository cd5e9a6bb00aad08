"""Speed and size of a model."""

from __future__ import annotations

import time

import pytest
import torch
from tiny_models import tiny_model
from torch import nn

from distillkit.evaluation.speed import generation_speed, model_size

CPU = torch.device("cpu")


def test_speed_is_the_median_of_new_tokens_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2", vocab_size=97)
    clock, widths = 0.0, []

    def tick(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, torch.Tensor]) -> None:
        nonlocal clock
        widths.append(kwargs["input_ids"].shape[1])
        # The warm-up is slowest, the second run that counts takes three times as long as the others.
        clock += 9.0 if len(widths) <= 2 else 0.3 if 10 < len(widths) <= 18 else 0.1

    model.register_forward_pre_hook(tick, with_kwargs=True)
    model.train()
    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    assert generation_speed(model, [1, 2, 3], device=CPU, new_tokens=8, repeats=3) == pytest.approx(10)
    assert model.training
    # A warm-up of two tokens, then three runs: the prompt is read once, afterwards one token at a time.
    assert widths == [3, 1] + 3 * [3, *7 * [1]]


@pytest.mark.parametrize("length", [1, 12, 40])
def test_prompt_and_new_tokens_stay_within_the_context(length: int) -> None:
    # GPT-2's positions are a table: one too many would be an error.
    model = tiny_model("gpt2", vocab_size=97, context=12)
    assert generation_speed(model, [1] * length, device=CPU, context=12, repeats=1) > 0


def test_size_counts_tied_weights_once() -> None:
    tied = tiny_model("qwen2", vocab_size=97)
    size = model_size(tied)
    assert size.parameters == sum(
        weight.numel() for weight in {id(w): w for w in tied.state_dict(keep_vars=True).values()}.values()
    )
    assert size.bytes == 4 * size.parameters
    assert model_size(tied.bfloat16()).bytes == 2 * size.parameters
