"""Importance and the norms' factors, against forward passes written out in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from width_models import KINDS, LAYERS, Trace, read_naively, width_model

from distillkit.models.width_importance import measure_importance, norm_scales
from distillkit.models.width_shape import family_of, sizes_of

# Two texts of one length in a batch, and a shorter one.
TEXTS = [torch.arange(1, 19).view(2, 9), torch.tensor([[40, 3, 3, 59, 7]])]
LEFT = torch.tensor([0, 3, 4, 9, 17, 30, 31])


def traces(model: Any) -> list[Trace]:
    found = [read_naively(model, row) for text in TEXTS for row in text]
    logits = [model(input_ids=row[None]).logits[0] for text in TEXTS for row in text]
    for trace, wanted in zip(found, logits, strict=True):
        assert torch.allclose(trace.logits, wanted.double(), atol=1e-3)  # It is the same model.
    return found


def scored(values: list[Tensor]) -> Tensor:
    """[N] from the [T, N] of each text: the mean over the text, then the L2 norm over texts."""
    total = torch.zeros(values[0].shape[1], dtype=torch.float64)
    for each in values:
        total += (each.sum(0) / len(each)) ** 2
    return total.sqrt()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_importance(kind: str) -> None:
    model = width_model(kind)
    family, sizes = family_of(model.config), sizes_of(model.config)
    found = measure_importance(model, TEXTS, family, sizes)
    texts = traces(model)
    for layer in range(LAYERS):
        neurons = scored([text.neurons[layer].abs() for text in texts])
        assert torch.allclose(found.ffn[layer], neurons, rtol=1e-4)
        for group in range(sizes.groups):
            own = slice(group * sizes.queries, (group + 1) * sizes.queries)
            length = [text.heads[layer][:, own].square().sum((1, 2)).sqrt()[:, None] for text in texts]
            assert torch.allclose(found.groups[layer, group], scored(length)[0], rtol=1e-4)
    columns = sum(scored([text.norms_out[norm].abs() for text in texts]) for norm in range(2 * LAYERS + 1))
    assert torch.allclose(found.hidden, columns, rtol=1e-4)  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_factor_keeps_what_is_left_as_near_as_a_factor_can(kind: str) -> None:
    model = width_model(kind)
    found = norm_scales(model, TEXTS, family_of(model.config), LEFT)
    assert len(found) == 2 * LAYERS + 1

    def standard(states: Tensor) -> Tensor:
        if model.config.model_type == "gpt2":
            states = states - states.mean(-1, keepdim=True)
        return states / states.square().mean(-1, keepdim=True).sqrt()

    texts = traces(model)
    for place, factor in enumerate(found.values()):
        states = torch.cat([text.norms_in[place] for text in texts])
        before, after = standard(states)[:, LEFT], standard(states[:, LEFT])
        # The factor of least squares.
        assert factor == pytest.approx(float((before * after).sum() / after.square().sum()), rel=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_model_is_left_as_it_was(kind: str) -> None:
    model = width_model(kind)
    model.train()
    inner = next(model.get_submodule(family_of(model.config).blocks).children())
    inner.eval()
    measure_importance(model, TEXTS, family_of(model.config), sizes_of(model.config))
    norm_scales(model, TEXTS, family_of(model.config), LEFT)
    assert model.training
    assert not inner.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
