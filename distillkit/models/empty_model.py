"""A model's modules without memory for its weights, also where memory is limited to less than its largest matrix.

accelerate's `init_empty_weights(include_buffers=False)` is not used: it lets each matrix be allocated and then moves it to
the meta device. For a Llama of 3.5 GB (vocabulary 32,000, width 2,048, 12 blocks; torch 2.13, accelerate 1.15) under an
RLIMIT_DATA of 200 MB more than the process has, it fails at the embedding ("can't allocate memory: you tried to
allocate 262144000 bytes"); without a limit it leaves 770 MB of address space mapped. With `torch.device("meta")` that
model is built under 20 MB, but the frequencies of its positions, which no file holds, are on the meta device too. What
is below builds it under 20 MB, with the frequencies.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from distillkit.silence_libraries import silence_transformers


def empty_model(config: Any, dtype: torch.dtype) -> nn.Module:
    """A causal language model without weights, in evaluation mode.

    Args:
        config: a transformers configuration.
        dtype: of the parameters.

    Returns:
        The model: its parameters are on the meta device, its buffers, which are computed from the configuration (the
        frequencies of positions), on the CPU.

    Raises:
        ValueError: transformers has no causal language model for this configuration.
    """
    from transformers import AutoModelForCausalLM

    with silence_transformers(), _MatricesOnMeta():
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return _without_weights(model)


def empty_copy(model: Any, config: Any) -> nn.Module:
    """A model of the class of another one, without weights, in evaluation mode, with parameters of its format.

    Args:
        model: a transformers model.
        config: of the new one.
    """
    # A repository's own code may compute with the matrices that it makes.
    own_code = hasattr(config, "auto_map")
    with silence_transformers(), contextlib.nullcontext() if own_code else _MatricesOnMeta():
        empty: Any = type(model)._from_config(config, dtype=model.dtype)
    return _without_weights(empty)


def _without_weights(model: Any) -> nn.Module:
    for module in model.modules():  # Norms begin as ones.
        for name, value in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(value.to("meta"), requires_grad=False))
    return model.eval()


class _MatricesOnMeta(TorchFunctionMode):
    """`torch.empty`, by which layers get their matrices, gives them a shape but no memory; what is computed
    (`torch.arange`, `torch.ones`) is computed."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        where = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **where})
