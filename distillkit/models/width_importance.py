"""How much each neuron, head and hidden column of a model does on a few texts (Minitron: Muralidharan et al. 2024,
arXiv 2407.14679, section 2.2, aggregated by the mean over a text and the L2 norm over texts)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.interrupts import check_interrupted
from distillkit.models.width_shape import Family, Sizes


@dataclass(frozen=True)
class Importance:
    """Scores in float64; only their order within a row counts.

    Attributes:
        ffn: [L, F] of each layer's neurons.
        groups: [L, G] of each layer's key/value groups with their query heads.
        hidden: [D] of the hidden columns.
    """

    ffn: Tensor
    groups: Tensor
    hidden: Tensor


def measure_importance(model: nn.Module, texts: Sequence[Tensor], family: Family, sizes: Sizes) -> Importance:
    """Read the texts once.

    With a mean over the tokens t of a text b, and the L2 norm over texts:

        ffn      I = ‖ mean_t |a| ‖_b          a: what the down-projection reads of a neuron
        groups   I = ‖ mean_t ‖o‖₂ ‖_b         o: what the output projection reads of a group's heads
        hidden   I = Σ_norms ‖ mean_t |y| ‖_b  y: what a norm writes into a column

    Args:
        texts: token ids [B, T] without padding; each row is a text.
    """
    blocks: Any = model.get_submodule(family.blocks)
    layers = len(blocks)
    # Sums of squares over the texts.
    ffn = torch.zeros(layers, sizes.ffn, dtype=torch.float64)
    groups = torch.zeros(layers, sizes.groups, dtype=torch.float64)
    norms = {name: torch.zeros(sizes.hidden, dtype=torch.float64) for name in _norms(model, family)}

    def neurons(layer: int) -> Callable[[Tensor], None]:
        return lambda read_BTF: _add(ffn[layer], read_BTF.abs())

    def heads(layer: int) -> Callable[[Tensor], None]:
        def add(read_BTQ: Tensor) -> None:
            read_BTGq = read_BTQ.unflatten(-1, (sizes.groups, -1))
            _add(groups[layer], torch.linalg.vector_norm(read_BTGq, dim=-1, dtype=torch.float32))

        return add

    def columns(name: str) -> Callable[[Tensor], None]:
        return lambda written_BTD: _add(norms[name], written_BTD.abs())

    with contextlib.ExitStack() as hooks:
        for layer, block in enumerate(blocks):
            hooks.enter_context(_reading(block.get_submodule(family.ffn_input), neurons(layer)))
            hooks.enter_context(_reading(block.get_submodule(family.heads_input), heads(layer)))
        for name in norms:
            hooks.enter_context(_writing(model.get_submodule(name), columns(name)))
        _read(model, texts)
    hidden = torch.stack([values.sqrt() for values in norms.values()]).sum(0)
    return Importance(ffn.sqrt(), groups.sqrt(), hidden)


def norm_scales(model: nn.Module, texts: Sequence[Tensor], family: Family, columns: Tensor) -> dict[str, float]:
    """By what each norm's weight has to be multiplied once only some hidden columns are left.

    A norm divides by the root mean square s of all columns (LayerNorm: by their standard deviation), the narrower one by
    that of the columns that are left, s'. With the factor r, the values that are left become r·x/s' instead of x/s. The
    sum over tokens of the squared differences, ‖x‖ being s'·√d, is least at r = mean(s'/s).

    Args:
        columns: [d] those that are left.
        texts: token ids [B, T] without padding.

    Returns:
        The factor by the norm's name in `model`.
    """
    names = _norms(model, family)
    sums = dict.fromkeys(names, 0.0)
    tokens = sum(text.numel() for text in texts)

    def ratio(name: str, norm: Any) -> Callable[[Tensor], None]:
        def add(read_BTD: Tensor) -> None:
            states = read_BTD.float()
            left = states[..., columns.to(states.device)]
            sums[name] += float((_spread(left, norm) / _spread(states, norm)).sum())

        return add

    with contextlib.ExitStack() as hooks:
        for name in names:
            norm = model.get_submodule(name)
            hooks.enter_context(_reading(norm, ratio(name, norm)))
        _read(model, texts)
    return {name: total / tokens for name, total in sums.items()}


def _norms(model: nn.Module, family: Family) -> list[str]:
    """The names of all norms of hidden states, in the order in which they compute."""
    blocks: Any = model.get_submodule(family.blocks)
    inner = [f"{family.blocks}.{layer}.{norm}" for layer in range(len(blocks)) for norm in family.norms]
    return [*inner, family.final_norm]


def _spread(states: Tensor, norm: Any) -> Tensor:
    """What a norm divides by."""
    if isinstance(norm, nn.LayerNorm):
        return (states.var(dim=-1, correction=0) + norm.eps).sqrt()
    return (states.square().mean(dim=-1) + norm.variance_epsilon).sqrt()


def _add(sums: Tensor, values_BTN: Tensor) -> None:
    """Add the squares of the texts' means."""
    sums += values_BTN.mean(dim=1, dtype=torch.float64).square().sum(0).cpu()


@contextlib.contextmanager
def _reading(module: nn.Module, note: Callable[[Tensor], None]) -> Iterator[None]:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        note(inputs[0])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _writing(module: nn.Module, note: Callable[[Tensor], None]) -> Iterator[None]:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        note(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _read(model: Any, texts: Sequence[Tensor]) -> None:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for text in texts:
            check_interrupted()
            with torch.inference_mode():
                model.base_model(input_ids=text.to(model.device), use_cache=False)
    finally:
        for module, training in modes:
            module.training = training
