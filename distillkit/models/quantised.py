"""Checkpoints whose weights are stored in fewer bits: which they are, and where they cannot be used."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distillkit.errors import PreconditionError, first_line
from distillkit.installing import is_satisfied
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.silence_libraries import silence_transformers

# Where programs write down how they quantised: transformers and its kin, MLX, older compressed-tensors.
_CONFIG_NAMES = ("quantization_config", "compression_config", "quantization")
# What transformers needs for each of its ways, where that is a package of PyPI.
LIBRARIES = {
    "bitsandbytes": ("bitsandbytes>=0.46",),
    "gptq": ("gptqmodel>=4.0", "optimum>=1.24"),
    "awq": ("gptqmodel>=4.0",),
    "compressed-tensors": ("compressed-tensors>=0.15",),
    "torchao": ("torchao>=0.15",),
    "quanto": ("optimum-quanto>=0.2.5",),
    "auto-round": ("auto-round>=0.5",),
    "hqq": ("hqq>=0.2",),
    "aqlm": ("aqlm>=1.1",),
    "vptq": ("vptq>=0.0.4",),
}
_PLAIN = (torch.float32, torch.float16, torch.bfloat16)
_WHOLE_NUMBERS = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")


def quantisation(config: dict[str, Any], stored: StoredWeights) -> str | None:
    """How the weights of a model are quantised, in a few words; None where they are plain numbers.

    Args:
        config: the content of its config.json.
        stored: its weights.
    """
    text_config = config.get("text_config")
    for place in (config, text_config if isinstance(text_config, dict) else {}):
        for name in _CONFIG_NAMES:
            if isinstance(settings := place.get(name), dict) and settings:
                return _in_words(settings)
    return quantised_format(stored)


def _method(settings: dict[str, Any]) -> str | None:
    method = settings.get("quant_method")
    if not isinstance(method, str):
        return "bitsandbytes" if _bits_of_bitsandbytes(settings) else None
    return method


def _bits_of_bitsandbytes(settings: dict[str, Any]) -> int | None:
    if settings.get("load_in_4bit") or settings.get("_load_in_4bit"):
        return 4
    return 8 if settings.get("load_in_8bit") or settings.get("_load_in_8bit") else None


def can_have_adapter(config: dict[str, Any]) -> bool:
    """Whether a quantised model can be trained by an adapter (QLoRA: Dettmers et al. 2023, arXiv 2305.14314): one of
    bitsandbytes in 4 bits. Its layers of 8 bits lose their scales when a Trainer moves them (0.50)."""
    settings = config.get("quantization_config")
    return isinstance(settings, dict) and _method(settings) == "bitsandbytes" and _bits_of_bitsandbytes(settings) == 4


def check_quantised(name: str, config: dict[str, Any], how: str) -> None:
    """Refuse a quantised checkpoint that cannot be loaded here, before anything is done with it.

    Args:
        name: the model as the user named it.
        config: the content of its config.json.
        how: as `quantisation` says it.

    Raises:
        PreconditionError: a library is missing, or this machine cannot do it.
    """
    from transformers.quantizers.auto import AutoHfQuantizer

    settings = config.get("quantization_config")
    if not isinstance(settings, dict) or not settings:
        return
    wanted = LIBRARIES.get(_method(settings) or "", ())
    if missing := [requirement for requirement in wanted if not is_satisfied(requirement)]:
        quoted = " ".join(f"'{requirement}'" for requirement in missing)
        raise PreconditionError(
            f"{name} is quantised ({how}): that needs {quoted}, which is not installed",
            hint=f"pip install {quoted}, or name the unquantised original",
        )
    try:
        with silence_transformers():
            AutoHfQuantizer.from_config(settings, pre_quantized=True).validate_environment(device_map=None)
    except (ImportError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise PreconditionError(
            f"{name} is quantised ({how}) and cannot be loaded here: {first_line(error)}",
            hint="install what it asks for, or name the unquantised original",
        ) from error


def convert_the_rest(model: nn.Module, dtype: torch.dtype) -> None:
    """Give everything that is not quantised, such as embedding, norms and head, the format that was asked for, in place:
    transformers leaves it as it is stored (5.24).

    Args:
        model: a quantised one, just loaded.
        dtype: of its plain weights, those aside that its class keeps in fp32.
    """
    kept = {
        *(getattr(model, "_keep_in_fp32_modules", None) or ()),
        *(getattr(model, "_keep_in_fp32_modules_strict", None) or ()),
    }
    for name, module in model.named_modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        # A module with whole numbers, 8-bit floats or packed tensors has scales beside them, whose format is its library's.
        if all(type(values.data) is torch.Tensor and values.dtype in _PLAIN for values in own):
            for parameter_name, parameter in module.named_parameters(recurse=False):
                if not kept.intersection(f"{name}.{parameter_name}".split(".")):
                    parameter.data = parameter.data.to(dtype)


def not_quantised_after_all(model: nn.Module) -> str | None:
    """Why a model that was loaded as bitsandbytes' 4 bits cannot be used: its files hold plain weights. None: it can."""
    for name, module in model.named_modules():
        # That library's layers take any numbers, and fail when they compute.
        four_bits = type(module).__module__.startswith("bitsandbytes.") and hasattr(module, "quant_state")
        if four_bits and getattr(module.weight, "quant_state", None) is None:
            return f"{name}.weight is not stored in 4 bits"
    return None


def _in_words(settings: dict[str, Any]) -> str:
    method, bits = _method(settings), settings.get("bits", settings.get("w_bit"))
    bits = _bits_of_bitsandbytes(settings) or bits
    words = method or "a method without a name"
    return f"{words}, {bits} bits" if isinstance(bits, int) else words


def quantised_format(stored: StoredWeights) -> str | None:
    """What the files alone tell: matrices of whole numbers, or 8-bit floats with scales beside them, are no weights that can
    be read as they are. (Older GPTQ and AWQ checkpoints say nothing in config.json.)"""
    scales = any("scale" in name.rpartition(".")[2] for name in stored)
    for name in stored:
        kind, last = stored.format(name), name.rpartition(".")[2]
        matrix = len(stored.shape(name)) >= 2 and "weight" in last
        if matrix and (kind in _WHOLE_NUMBERS or (kind.startswith("F8") and scales)):
            return f"{name} is stored as {kind}"
    return None


def read_by_transformers(config: dict[str, Any]) -> bool:
    """Whether config.json says how its weights are quantised, in a way that this transformers has heard of: otherwise it
    takes the numbers for weights."""
    from transformers.quantizers.auto import AutoHfQuantizer

    settings = config.get("quantization_config")
    try:
        with silence_transformers():
            return isinstance(settings, dict) and bool(AutoHfQuantizer.supports_quant_method(settings))
    except ValueError:
        return False


def refuse_quantised(name: str, how: str, *, student: bool) -> PreconditionError:
    """What is said of a quantised checkpoint where plain weights are needed.

    Args:
        name: the model as the user named it.
        how: as `quantisation` says it.
        student: whether it is to be trained itself; else its layers are to become a student.
    """
    if student:
        return PreconditionError(
            f"the student {name} is quantised ({how}): such weights cannot be trained",
            hint="name the unquantised original that it was made from; beside 4 bits of bitsandbytes an adapter can be "
            "trained (--adapter lora)",
        )
    return PreconditionError(
        f"the teacher {name} is quantised ({how}): its layers cannot become a student that is trained",
        hint="name the unquantised original as the teacher, or another model as the student",
    )
