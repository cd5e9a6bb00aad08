"""A student that is divided over the processes (`--parallel fsdp`): weights, gradient and what the optimizer remembers.

The engine is torch's `fully_shard` (FSDP2; Zhao et al. 2023, arXiv 2304.11277): each process keeps its rows of every weight.
Before a block computes, its weights are gathered, and let go of afterwards; gradients are summed where their rows belong. What
lies outside the blocks (embedding, last norm, head) is whole in every process while a batch is computed, so the loss meets
the head as a plain layer, tied to the embedding or not.

Files do not know of it: checkpoints and students are written from the whole model, in the form that one process writes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from distillkit.errors import UsageError
from distillkit.models.pruning import decoder_blocks
from distillkit.processes.group import Group


class DividedStudent:
    """A student whose parts lie in the processes of a group. All of them call its methods, in the same order.

    Args:
        model: whole, in the memory of the processor; `divide` changes it in place.
        device: where it computes.
        group: two processes or more.

    Attributes:
        blocks: what is gathered one after the other, the layers; [] where they cannot be told apart: then all is at once.
    """

    def __init__(self, model: nn.Module, device: torch.device, group: Group) -> None:
        self.model, self.device, self.group = model, device, group
        self.blocks = _blocks(model)
        self._divided = False
        # To be filled again. Of the trainer's changes to the model it has none.
        self._empty = _twin(model, lambda weights: weights.to("meta")) if group.leads else None

    def divide(self) -> None:
        """Keep only this process's rows of each weight, on its device."""
        if self._divided:
            return
        mesh = device_mesh.init_device_mesh(self.device.type, (self.group.size,))
        for block in self.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        for module in _divided_modules(self.model):
            module.set_force_sum_reduction_for_comms(True)  # Gloo knows no other.
        # Accelerate would wrap it in DistributedDataParallel.
        self.model._is_accelerate_prepared = True  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        self._divided = True

    def whole(self) -> nn.Module:
        """The student as one model in the memory of the processor, in process 0: a copy. In the others what they have of it."""
        if not self._divided:
            return self.model
        for module in _divided_modules(self.model):
            module.reshard()  # A forward pass without a backward pass leaves the outermost weights gathered.
        gathered = {name: self._gathered(weights) for name, weights in self.model.named_parameters()}
        if self._empty is None:
            return self.model
        buffers = dict(self.model.named_buffers())

        def filled(name: str, empty: Tensor) -> Tensor:
            return gathered.pop(name) if isinstance(empty, nn.Parameter) else buffers[name].cpu()

        named = [*self._empty.named_parameters(), *self._empty.named_buffers()]
        names = {id(empty): name for name, empty in named}
        return _twin(self._empty, lambda empty: filled(names[id(empty)], empty))

    # --- the optimizer ---

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimizer's state as that of one process would be, in process 0; in the others of no use."""
        content = optimizer.state_dict()
        states = {
            index: {name: self._gathered(value) for name, value in values.items()}
            for index, values in content["state"].items()
        }
        return {**content, "state": states}

    def load_optimizer(self, optimizer: torch.optim.Optimizer, path: Path) -> None:
        """Take over what `optimizer_state` gave, or the optimizer of one process: each takes its rows.

        Args:
            path: a file of `torch.save`.
        """
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, values in content["state"].items():
            content["state"][index] = {name: _own_rows(value, parameters[index]) for name, value in values.items()}
        optimizer.load_state_dict(content)

    def _gathered(self, values: Any) -> Any:
        """A value of all processes as a whole, in process 0 in the memory of the processor."""
        if not isinstance(values, DTensor):
            return values
        rows: Any = values.detach()
        whole = rows.full_tensor()
        return whole.cpu() if self.group.leads else None


def _blocks(model: nn.Module) -> list[nn.Module]:
    try:
        return list(decoder_blocks(model)[2])
    except UsageError:
        return []


def _divided_modules(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _twin(model: nn.Module, fill: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of a model with other numbers, in which the same weights are shared.

    Args:
        fill: a parameter or a buffer to the tensor in its place.
    """
    places: dict[int, Any] = {}
    for weights in model.parameters():
        places[id(weights)] = nn.Parameter(fill(weights).detach(), requires_grad=weights.requires_grad)
    for buffer in model.buffers():
        places[id(buffer)] = fill(buffer)
    return copy.deepcopy(model, places)


def _own_rows(value: Any, parameter: Tensor) -> Any:
    """What an optimizer remembers of a parameter, divided as the parameter is; what is no such tensor stays."""
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    mesh, placements = parameter.device_mesh, parameter.placements
    # Every process has read the file: nothing has to be sent.
    return distribute_tensor(value, mesh, placements, src_data_rank=None)
