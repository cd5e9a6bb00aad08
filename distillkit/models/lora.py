"""LoRA adapters on a model in memory: where they go, adding them, and the model that they and its weights make together.

Beside a projection W [out, in] stands (alpha / r) · B A with A [r, in] and B [out, r]; B begins as zeros, so the model is the
same before the first step (Hu et al. 2021, arXiv 2106.09685). The layers are peft's, put into the model in place: its class,
its backbone and its head stay what they were.
"""

from __future__ import annotations

import contextlib
import copy
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from distillkit.errors import PreconditionError
from distillkit.models.pruning import decoder_blocks
from distillkit.silence_libraries import silence_transformers

ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Linear layers of a block that choose and do not project: small, and of another kind.
_CHOOSING = re.compile(r"(^|\.)(router|gate|shared_expert_gate|expert_gate)$")
_NAME = "default"  # What peft calls an adapter that is given no name.


@dataclass(frozen=True)
class LoraSettings:
    """Attributes:
    rank: r.
    alpha: the scale is alpha / r.
    dropout: the share of A's inputs that are zero in a step of the training.
    """

    rank: int
    alpha: float
    dropout: float


def projections(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of attention and feed-forward by their full names: those inside the decoder blocks.

    Raises:
        UsageError: the model's blocks cannot be told apart.
    """
    blocks = decoder_blocks(model)[2]
    inside = {module for block in blocks for module in block.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if module in inside and _is_linear(module) and not _CHOOSING.search(name)
    }


def _is_linear(module: nn.Module) -> bool:
    # Also the layers of bitsandbytes, which are subclasses.
    return isinstance(module, nn.Linear | Conv1D)


def widths(layer: nn.Module) -> int:
    """in + out of a projection: the numbers that a LoRA of rank 1 has beside it."""
    if isinstance(layer, nn.Linear):
        return layer.in_features + layer.out_features
    rows, columns = (int(size) for size in layer.weight.shape)  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue, reportArgumentType]
    return rows + columns


def add_lora(model: nn.Module, settings: LoraSettings, name: str) -> int:
    """Put adapters beside all projections of a model, in place; everything else is frozen.

    The random numbers of A are drawn from torch's generator.

    Args:
        name: of the model, for the message.

    Returns:
        The numbers that are trained.

    Raises:
        PreconditionError: there is nothing in it that could be adapted.
        UsageError: its blocks cannot be told apart.
    """
    from peft import LoraConfig, TaskType, inject_adapter_in_model

    found = projections(model)
    if not found:
        raise PreconditionError(
            f"--adapter lora: {name} ({type(model).__name__}) has no linear layers in its blocks", hint="leave it out"
        )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=settings.dropout,
        target_modules=_short_names(model, found),
        fan_in_fan_out=all(isinstance(layer, Conv1D) for layer in found.values()),
        task_type=TaskType.CAUSAL_LM,
    )
    model.requires_grad_(False)
    with _quiet_peft():
        inject_adapter_in_model(config, model, _NAME)
    if getattr(model, "is_quantized", False):
        _differentiable(model)
        # By this transformers' Trainer knows that it is not the quantised weights that are trained.
        model._hf_peft_config_loaded = True  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in parameter_name)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _short_names(model: nn.Module, found: dict[str, nn.Module]) -> list[str]:
    """`q_proj` rather than `model.layers.0.self_attn.q_proj` and so on, where that means the same layers."""
    last = {name.rpartition(".")[2] for name in found}
    meant = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in last}
    return sorted(last if meant == set(found) else found)


@contextlib.contextmanager
def _quiet_peft() -> Iterator[None]:
    with silence_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_adapted(model: nn.Module) -> bool:
    """Whether `add_lora` has been there."""
    return bool(getattr(model, "peft_config", None))


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


# --- the model without its adapters -----------------------------------------------------------------------------------


def merged(model: nn.Module) -> nn.Module:
    """The plain model that computes what an adapted one does: W + (alpha / r) · B A for every projection. For saving only.

    Args:
        model: stays as it is; what is not adapted is shared with it.
    """
    return _plain(model, adapters=True)


def base(model: nn.Module) -> nn.Module:
    """The model as it was before it was adapted, all of whose weights it shares. For saving only."""
    return _plain(model, adapters=False)


def _plain(model: nn.Module, *, adapters: bool) -> nn.Module:
    from peft.tuners.tuners_utils import BaseTunerLayer

    made: dict[nn.Module, nn.Module] = {}

    def twin(module: nn.Module) -> nn.Module:
        if module not in made:
            made[module] = _bare(module) if isinstance(module, BaseTunerLayer) else copied(module)
        return made[module]

    def _bare(layer: Any) -> nn.Module:
        bare = copied(layer.get_base_layer())
        if adapters:
            with torch.no_grad():
                weight = bare.weight + layer.get_delta_weight(_NAME).to(bare.weight.device)
            bare.weight = nn.Parameter(weight, requires_grad=False)
        return bare

    def copied(module: nn.Module) -> nn.Module:
        if is_quantised(module):
            return _dequantised(module)
        shallow = copy.copy(module)
        for name in ("_parameters", "_buffers", "_modules"):
            setattr(shallow, name, dict(getattr(module, name)))
        # Wrapped by a trainer, it would lead back to the original.
        vars(shallow).pop("forward", None)
        for name, child in module.named_children():
            shallow._modules[name] = twin(child)
        return shallow

    plain: Any = twin(model)
    made.clear()  # These functions know one another: without this the merged weights would stay until a garbage collection.
    for name in ("peft_config", "_hf_peft_config_loaded", "quantization_method"):
        vars(plain).pop(name, None)
    if getattr(plain, "is_quantized", False):
        plain.config = copy.deepcopy(plain.config)
        del plain.config.quantization_config
        plain.hf_quantizer, plain.is_quantized = None, False
        # How it was loaded, the packed weights among it: what its architecture is stored like is worked out anew.
        vars(plain).pop("_weight_conversions", None)
    return plain


# --- weights of bitsandbytes --------------------------------------------------------------------------------------------


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer has its weights in few bits, as bitsandbytes stores them."""
    return type(module).__module__.startswith("bitsandbytes.")


def _differentiable(model: nn.Module) -> None:
    """Keep bitsandbytes from laying weights out for its quick products on a CPU with bf16 instructions (0.49 and newer): that
    it does when a model is scored, and from then on training would get no gradients through them, without an error."""
    for module in model.modules():
        if is_quantised(module) and hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]


def _dequantised(layer: Any) -> nn.Module:
    """A plain layer with the numbers that a quantised one stands for, in fp32."""
    from peft.utils.integrations import dequantize_module_weight

    layer.state_dict()  # On a CPU it may have laid its numbers out anew for its own products, which this undoes.
    plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    with torch.no_grad():
        weight = dequantize_module_weight(layer).detach().float()
        plain.weight = nn.Parameter(weight.reshape(layer.out_features, layer.in_features), requires_grad=False)
        if layer.bias is not None:
            plain.bias = nn.Parameter(layer.bias.detach().float(), requires_grad=False)
    return plain


# --- an adapter as files ------------------------------------------------------------------------------------------------


def save_adapter(folder: Path, model: Any, base_model: str, revision: str | None) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` as peft reads them.

    Args:
        folder: is there.
        model: adapted.
        base_model: what the adapter is for: a folder, or a repository of the Hub.
        revision: its commit.

    Raises:
        OSError, SafetensorError: they cannot be written.
    """
    from peft import get_peft_model_state_dict

    config = copy.copy(model.peft_config[_NAME])
    config.base_model_name_or_path, config.revision, config.inference_mode = base_model, revision, True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(str(folder))
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    # As peft names what lies in a model that it wraps.
    weights = {f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
