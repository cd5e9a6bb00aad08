"""Sums are in fp32 or better, and products in the format of autocast."""

from __future__ import annotations

import pytest
import torch

from distillkit.device.number_formats import product_format, sum_format, widen


@pytest.mark.parametrize(
    ("given", "wide"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_sums_are_in_fp32_or_in_fp64_where_the_numbers_are(given: torch.dtype, wide: torch.dtype) -> None:
    values = torch.tensor([1.5, -2.0], dtype=given)
    assert sum_format(values) == widen(values).dtype == wide
    assert widen(values).tolist() == [1.5, -2.0]
    assert (widen(values) is values) == (given == wide)


def test_products_are_in_the_format_of_autocast_but_for_double_precision() -> None:
    assert product_format(torch.ones(1)) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert product_format(torch.ones(1)) == torch.bfloat16
        assert product_format(torch.ones(1, dtype=torch.float64)) == torch.float64
