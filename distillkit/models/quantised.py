"""Checkpoints whose weights are stored in fewer bits: which they are, and where they cannot be used."""

from __future__ import annotations

from typing import Any

from distillkit.errors import PreconditionError
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.silence_libraries import silence_transformers

# Where programs write down how they quantised: transformers and its kin, MLX, older compressed-tensors.
_CONFIG_NAMES = ("quantization_config", "compression_config", "quantization")
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


def _in_words(settings: dict[str, Any]) -> str:
    method = settings.get("quant_method")
    bits = settings.get("bits", settings.get("w_bit"))
    if settings.get("load_in_4bit") or settings.get("_load_in_4bit"):
        method, bits = method or "bitsandbytes", 4
    elif settings.get("load_in_8bit") or settings.get("_load_in_8bit"):
        method, bits = method or "bitsandbytes", 8
    words = str(method) if isinstance(method, str) else "a method without a name"
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
            hint="name the unquantised original that it was made from",
        )
    return PreconditionError(
        f"the teacher {name} is quantised ({how}): its layers cannot become a student that is trained",
        hint="name the unquantised original as the teacher, or another model as the student",
    )
