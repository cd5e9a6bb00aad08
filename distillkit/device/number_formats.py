"""The formats of numbers in which sums and matrix products are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_format(values: Tensor) -> torch.dtype:
    """The format in which such numbers are added up: fp32, or fp64 if they are fp64."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def widen(values: Tensor) -> Tensor:
    """The same numbers in `sum_format`, any shape; the tensor itself if it has that format."""
    return values if values.dtype == torch.float64 else values.float()


def product_format(values: Tensor) -> torch.dtype:
    """The format of matrix products on such numbers: that of autocast where it is on."""
    kind = values.device.type
    # Autocast leaves double precision alone.
    autocast = torch.is_autocast_enabled(kind) and values.dtype != torch.float64
    return torch.get_autocast_dtype(kind) if autocast else values.dtype
