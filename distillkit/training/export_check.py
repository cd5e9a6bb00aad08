"""Whether the student that was written is the one that was trained: both read a text that was held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.errors import PreconditionError, first_line
from distillkit.evaluation.batched_forward import eval_mode
from distillkit.models.lora import is_adapted
from distillkit.models.plain_folder import plain_folder
from distillkit.silence_libraries import silence_transformers

LONGEST = 128  # Tokens of the text.
# On one machine both compute the same products in the same order; only kernels that choose by the address of their
# operands may round otherwise. A layer of another kind, or one weight that is lost, changes far more than this.
ROUNDING = 1e-4
# An adapter computes two products where what is written has one, so every layer rounds otherwise: SmolLM2-135M cut to 20 layers
# was 1.3e-4 away.
ADAPTED_ROUNDING = 2e-3
# A student that was trained by an adapter beside weights of 4 or 8 bits computes in few bits too; what is written does not.
QUANTISED_ROUNDING = 0.1


def check_written(
    folder: Path,
    model: nn.Module,
    text: Sequence[int],
    *,
    trust_remote_code: bool = False,
    role: str = "student",
    read: Callable[[], nn.Module] | None = None,
) -> None:
    """Load a model that was just written, and compare its logits with those of the model in memory.

    The loaded copy takes as much memory as the weights, for as long as this lasts.

    Args:
        folder: holds config.json and the weights.
        model: that was written; its training mode is restored.
        text: token ids, of which at most `LONGEST` are read; none: only the weights are compared with what the
            configuration makes of them.
        role: of the model, for the message.
        read: loads what was written where that is no folder of a whole model.

    Raises:
        PreconditionError: it cannot be loaded, lacks weights, has some that belong nowhere, or computes something else.
    """
    name, device = type(model).__name__, next(model.parameters()).device
    written, report = _load(folder, name, trust_remote_code, role) if read is None else (read().eval(), {})
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, report.get(what, ()))):
            raise _wrong(role, name, f"{len(keys)} {what.replace('_', ' ')} in its files, such as {keys[0]}")
    if not len(text):
        return
    ids = torch.tensor([list(text[:LONGEST])], device=device)
    with eval_mode(model):
        trained = _logits(model, ids)
    loaded = _logits(written.to(device), ids)
    if trained.shape != loaded.shape:
        raise _wrong(role, name, f"its logits have the shape {tuple(loaded.shape)} instead of {tuple(trained.shape)}")
    apart, spread = (loaded - trained).abs().max().item(), trained.std().item()
    # NaN is equal to NaN here: it is reported where a student is scored.
    if apart > _rounding(model) * max(spread, 1e-6):
        raise _wrong(
            role,
            name,
            f"its logits are up to {apart:.3g} away from those of the trained one, which vary by {spread:.3g}",
        )


def _rounding(model: nn.Module) -> float:
    """Of the spread of the logits, what the written student may be away from one that is trained in this form."""
    if getattr(model, "is_quantized", False):
        return QUANTISED_ROUNDING
    return ADAPTED_ROUNDING if is_adapted(model) else ROUNDING


def _load(folder: Path, name: str, trust_remote_code: bool, role: str) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    try:
        # The settings of its authors are in its config.json again, those with which its logits would have no name too.
        with silence_transformers(), plain_folder(folder) as plain:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(plain), dtype=torch.float32, trust_remote_code=trust_remote_code, local_files_only=True,
                use_safetensors=True, output_loading_info=True,
            )  # fmt: skip
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        # Out of memory is a RuntimeError too, and no fault of the files.
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise
        raise _wrong(role, name, f"it cannot be loaded: {first_line(error)}") from error
    model, report = loaded
    return model.eval(), report


def _logits(model: nn.Module, ids_1t: Tensor) -> Tensor:
    """[1, T, V] in fp32. The class's own forward: what a trainer wraps around that of the object computes in other formats."""
    with torch.no_grad(), torch.autocast(ids_1t.device.type, enabled=False):
        mask = torch.ones_like(ids_1t)
        return type(model).forward(model, input_ids=ids_1t, attention_mask=mask, use_cache=False).logits.float()


def _wrong(role: str, name: str, what: str) -> PreconditionError:
    return PreconditionError(
        f"the {role} as it is saved is not the one that was trained ({name}): {what}",
        hint="nothing was written; this architecture cannot be trained and saved with this transformers: name another one",
    )
