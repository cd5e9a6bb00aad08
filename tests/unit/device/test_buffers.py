"""Buffers keep their memory; a linear layer's output in one is the layer's output."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from distillkit.device.buffers import Buffers, linear_rows

CPU = torch.device("cpu")


def test_what_fits_into_the_memory_of_before_takes_no_more() -> None:
    buffers = Buffers()
    first = buffers.take("a", (4, 8), torch.float32, CPU)
    smaller = buffers.take("a", (3, 5), torch.float32, CPU)
    narrower = buffers.take("a", (8, 8), torch.bfloat16, CPU)
    assert first.data_ptr() == smaller.data_ptr() == narrower.data_ptr()
    assert (smaller.shape, smaller.is_contiguous(), narrower.dtype) == ((3, 5), True, torch.bfloat16)
    assert buffers.take("a", (9, 9), torch.float32, CPU).shape == (9, 9)
    assert buffers.take("b", (3, 5), torch.float32, CPU).data_ptr() != first.data_ptr()


@pytest.mark.parametrize("bias", [None, torch.arange(7.0)])
def test_the_output_of_a_layer_lies_in_a_buffer(bias: torch.Tensor | None) -> None:
    buffers, weight = Buffers(), torch.randn(7, 3)
    outputs = []
    for _ in range(2):
        rows = torch.randn(5, 3)
        output = linear_rows(buffers, "logits", rows, weight, bias)
        torch.testing.assert_close(output, functional.linear(rows, weight, bias))
        outputs.append(output)
    assert outputs[0].data_ptr() == outputs[1].data_ptr()
