"""What is passed to `from_pretrained` besides what the program always passes: `attn_implementation` and `model_kwargs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit.errors import UsageError, first_line
from distillkit.settings.parameters import Parameters
from distillkit.settings.training_values import kwargs_for

ATTENTION = "attn_implementation"


def load_options(config: Parameters, role: str) -> dict[str, Any]:
    """The arguments for one model.

    Args:
        role: "teacher" or "student".
    """
    return {**kwargs_for(config.model_kwargs, role), **attention_option(config)}


def attention_option(config: Parameters) -> dict[str, Any]:
    """Only how attention is computed: for a model whose own files hold the rest."""
    return {} if config.attn_implementation == "auto" else {ATTENTION: config.attn_implementation}


def own_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that change what a model computes, beyond its last digits."""
    return {name: value for name, value in options.items() if name != ATTENTION}


def refused_options(name: str, options: Mapping[str, Any], error: Exception) -> UsageError:
    """What is said where a model does not take its options."""
    own = own_options(options)
    given = [f"--attn-implementation {options[ATTENTION]}"] if ATTENTION in options else []
    given += [f"model_kwargs ({', '.join(own)})"] if own else []
    hint = "leave out what it does not know; what stands under `teacher` or `student` goes to that model alone"
    return UsageError(
        f"{name} cannot be loaded with {' and '.join(given)}: {first_line(error)}",
        hint=hint if own else "use --attn-implementation auto",
    )
