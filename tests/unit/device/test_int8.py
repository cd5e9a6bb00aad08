"""The teacher in int8: near the whole numbers, the same for a text whatever it is batched with, and all put back."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from distillkit.device import int8
from distillkit.device.int8 import Int8Linear, int8_problem, quantise_layers
from distillkit.device.precision import choose_compute
from distillkit.errors import UsageError
from distillkit.models.pruning import decoder_blocks
from distillkit.settings.parameters import Parameters

CPU = torch.device("cpu")
# Without an exact int8 product the program refuses the option, so there is nothing here to compare.
pytestmark = pytest.mark.skipif(int8_problem(CPU) is not None, reason="no exact int8 product on this machine")


def reference(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """What the layer is said to compute, one number after the other, in fp64."""

    def coarse(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = rows.float().abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
        return (rows.float() / scale).round().double(), scale.double()

    (left, left_scale), (right, right_scale) = coarse(values), coarse(weight)
    product = left_scale * (left @ right.T) * right_scale.T
    return product if bias is None else product + bias.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 5, int8._ROWS + 3])
def test_the_layer_is_what_it_is_said_to_be(dtype: torch.dtype, bias: bool, rows: int) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 40, bias=bias).to(dtype)
    values = torch.randn(rows, 48).to(dtype)
    values[0] *= 1000  # One token with huge activations does not coarsen the others.
    with torch.no_grad():
        found = Int8Linear(layer.weight, layer.bias)(values)
    assert found.dtype == dtype
    expected = reference(values, layer.weight.detach(), layer.bias.detach() if bias else None)
    torch.testing.assert_close(found.double(), expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    exact = layer.double()(values.double()).detach()
    assert float((found - exact).norm(dim=-1).div(exact.norm(dim=-1)).max()) < 0.03


def test_zeros_stay_zeros() -> None:
    layer = Int8Linear(torch.zeros(8, 16), None)
    assert torch.equal(layer(torch.zeros(2, 3, 16)), torch.zeros(2, 3, 8))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_blocks_are_quantised_and_put_back(family: str) -> None:
    model = tiny_model(family, 300, layers=2)
    ids = torch.arange(40).view(2, 20)
    blocks = decoder_blocks(model)[2]
    linear = [name for name, module in blocks.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        undo = quantise_layers(blocks)
        assert [name for name, module in blocks.named_modules() if isinstance(module, Int8Linear)] == linear
        coarse = model(input_ids=ids).logits
        # Another text beside it changes nothing for a text.
        other = torch.stack([ids[0], ids[1].flip(0)])
        assert torch.equal(model(input_ids=other).logits[0], coarse[0])
        undo()
        assert torch.equal(model(input_ids=ids).logits, before)
    assert not torch.equal(coarse, before)
    assert float((coarse - before).norm() / before.norm()) < 0.05
    assert isinstance(model.get_output_embeddings(), nn.Linear)


def test_it_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "for the CPU" in (int8_problem(torch.device("cuda")) or "")
    settings = Parameters(no_cuda=True, teacher_precision="int8")
    choose_compute(settings)

    def saturating(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return (left.int() @ right.int()).clamp(max=2**15 - 1)

    def absent(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not implemented for 'CPU'")

    for product, words in ((saturating, "overflow"), (absent, "no int8 matrix product here"), (None, "no int8")):
        monkeypatch.setattr(int8, "_int8_product", product)
        with pytest.raises(UsageError, match=words):
            choose_compute(settings)
    choose_compute(Parameters(no_cuda=True, teacher_precision="int8", box_type="black"))
