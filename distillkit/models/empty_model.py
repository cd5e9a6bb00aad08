"""A model's modules without memory for its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from distillkit.silence_libraries import silence_transformers


def empty_model(config: Any, dtype: torch.dtype) -> nn.Module:
    """A causal language model of a configuration, in evaluation mode; its parameters are on the meta device, what is
    computed from the configuration (the frequencies of positions) is there."""
    from transformers import AutoModelForCausalLM

    with silence_transformers(), _WithoutWeights():
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for module in model.modules():  # Norms begin as ones.
        for name, value in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(value.to("meta"), requires_grad=False))
    return model.eval()


class _WithoutWeights(TorchFunctionMode):
    """Matrices get a shape but no memory; `torch.device("meta")` would take what is computed away as well."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        where = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **where})
