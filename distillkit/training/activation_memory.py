"""`--gradient-checkpointing`: of a layer only the input is kept for the backward pass, which computes the rest again."""

from __future__ import annotations

from typing import Any

from torch import nn

from distillkit.errors import PreconditionError


def keep_inputs_only(model: nn.Module, name: str) -> None:
    """Have every layer computed again where its gradient is needed (Chen et al. 2016, arXiv 1604.06174).

    Args:
        model: changed in place; what it computes stays the same, dropout included.
        name: of the model, for the message.

    Raises:
        PreconditionError: its architecture cannot do it.
    """
    # Repositories with code of their own may still have the older name alone.
    enable: Any = getattr(model, "activation_checkpointing_enable", None) or getattr(
        model, "gradient_checkpointing_enable", None
    )
    try:
        if enable is None:
            raise ValueError("it has no such method")
        enable({"use_reentrant": False})
    except (ValueError, NotImplementedError) as error:
        raise PreconditionError(
            f"--gradient-checkpointing: {name} ({type(model).__name__}) cannot compute its layers again: {error}",
            hint="leave it out, and use a smaller --batch-size with --gradient-accumulation",
        ) from error
