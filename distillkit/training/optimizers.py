"""The optimizers that a training can have: what each is called elsewhere, what it needs, and how much it remembers.

Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon) is for the matrices between embedding and head; embedding, head,
norms and biases have AdamW beside it. Its steps are scaled as by Liu et al. 2025 (arXiv 2502.16982), to the size that AdamW's
have, so one learning rate and one weight decay serve both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from distillkit.device.precision import Compute
from distillkit.errors import PreconditionError
from distillkit.models.shape import ModelShape
from distillkit.settings.parameters import Parameters

BITSANDBYTES = "bitsandbytes>=0.46"
# As `transformers.TrainingArguments.optim` calls them; Muon is made here.
_NAMES = {"adamw": "adamw_torch_fused", "adamw-8bit": "adamw_bnb_8bit", "adafactor": "adafactor", "muon": "adamw_torch"}
_MOMENT = 4  # Bytes of a number in fp32.


def optim_name(config: Parameters, compute: Compute) -> str:
    """The value of `TrainingArguments.optim`."""
    # One pass over memory instead of a dozen; with fp16 the scaler has to tell a skipped step, which only the other can.
    if config.optimizer == "adamw" and compute.autocast is torch.float16:
        return "adamw_torch"
    return _NAMES[config.optimizer]


def check_optimizer(config: Parameters) -> None:
    """Refuse an optimizer that this installation does not have.

    Raises:
        PreconditionError: torch is too old for it.
    """
    if config.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        raise PreconditionError(
            f"--optimizer muon needs torch 2.9 or newer, this is {torch.__version__}",
            hint="pip install -U torch, or use --optimizer adamw",
        )


def optimizer_libraries(config: Parameters) -> list[str]:
    """What has to be installed for it."""
    return [BITSANDBYTES] if config.optimizer == "adamw-8bit" else []


def remembered_bytes(optimizer: str, shape: ModelShape) -> int:
    """What an optimizer keeps of a model besides weights and gradients.

    Args:
        shape: of the model that is trained.
    """
    embedding = shape.embedded
    matrices = shape.parameters - embedding
    if optimizer == "adafactor":  # A sum for each row and each column.
        return 2 * _MOMENT * (shape.parameters // max(1, shape.inner_width))
    if optimizer == "adamw-8bit":  # Two bytes, and a factor for each 256 numbers of both; embeddings in fp32.
        return 2 * _MOMENT * embedding + round(matrices * (2 + 2 * _MOMENT / 256))
    if optimizer == "muon":
        return _MOMENT * (shape.parameters + shape.outside)
    return 2 * _MOMENT * shape.parameters


# --- Muon, and AdamW beside it ----------------------------------------------------------------------------------------


class MuonAndAdamW(Optimizer):
    """Two optimizers that share groups and states, so that schedules, scalers and checkpoints see one.

    Args:
        matrices: groups of 2-dimensional parameters, for Muon.
        others: groups for AdamW.
        lr: of both.
    """

    def __init__(self, matrices: list[dict[str, Any]], others: list[dict[str, Any]], lr: float) -> None:
        muon: Any = torch.optim.Muon  # torch 2.8 has none; `check_optimizer`.
        self._parts: list[Optimizer] = []
        if matrices:
            self._parts.append(muon(matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
        if others:
            self._parts.append(AdamW(others, lr=lr, weight_decay=0.0))
        self._sizes = [len(part.param_groups) for part in self._parts]
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Groups and states of this object are those of its parts: the same objects."""
        begin = 0
        for part, size in zip(self._parts, self._sizes, strict=True):
            part.param_groups, part.state = self.param_groups[begin : begin + size], self.state
            begin += size

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As of any optimizer; the parts follow."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss


def muon_and_adamw(model: nn.Module, lr: float, weight_decay: float, decayed: Iterable[str]) -> MuonAndAdamW:
    """The optimizer of a model.

    Args:
        lr: of all parameters.
        weight_decay: of those that decay.
        decayed: the names of these.
    """
    names, outside = set(decayed), outside_the_layers(model)
    matrices: list[nn.Parameter] = []
    decaying: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, value in model.named_parameters():
        if not value.requires_grad:
            continue
        if value.ndim == 2 and id(value) not in outside:
            matrices.append(value)
        else:
            (decaying if name in names else plain).append(value)
    others = [(decaying, weight_decay), (plain, 0.0)]
    return MuonAndAdamW(
        [{"params": matrices, "weight_decay": weight_decay}] if matrices else [],
        [{"params": values, "weight_decay": decay} for values, decay in others if values],
        lr,
    )


def outside_the_layers(model: nn.Module) -> set[int]:
    """The ids of what is no matrix of a layer although it has two dimensions: tables that are read by index, and the head."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    return tables | {id(value) for value in (head.parameters() if isinstance(head, nn.Module) else ())}
