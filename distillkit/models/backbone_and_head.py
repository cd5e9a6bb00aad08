"""A causal language model as its backbone, which gives hidden states, and its head, which makes logits of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_PROBE = 7  # Tokens of the text on which backbone and head are compared with the whole model.


@dataclass(frozen=True, eq=False)
class SplitModel:
    """A model as hidden states and a head.

    Attributes:
        hidden: {input_ids, attention_mask [B, T]} -> [B, T, D].
        head: [n, D] -> [n, V] logits.
        columns: V.
        apart: False where the model could not be taken apart: then the "hidden states" are its logits.
    """

    hidden: Callable[[Mapping[str, Tensor]], Tensor]
    head: Callable[[Tensor], Tensor]
    columns: int
    apart: bool = True

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The head's parameters that are trained, as they are now: where a model is divided over processes, these are others
        while it computes."""
        return _trained(self.head) if isinstance(self.head, nn.Module) else ()


def split_model(model: nn.Module) -> SplitModel:
    """Take a model apart if its head is a plain linear layer on its last hidden states.

    Some models do more (soft caps, scales, projections); whether this one does is found by computing the logits of a
    few tokens both ways. Those are left whole: their logits count as the hidden states.
    """
    backbone: Any = getattr(model, "base_model", model)
    layer: Any = getattr(model, "get_output_embeddings", lambda: None)()
    if isinstance(layer, nn.Linear) and backbone is not model:

        def hidden(inputs: Mapping[str, Tensor]) -> Tensor:
            return backbone(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).last_hidden_state

        split = SplitModel(hidden, layer, layer.out_features)
        if _is_the_same(model, split):
            return split
    return unsplit_model(model)


def unsplit_model(model: nn.Module) -> SplitModel:
    """The model left whole: hidden states are logits, the head does nothing."""

    def logits(inputs: Mapping[str, Tensor]) -> Tensor:
        return model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits

    return SplitModel(logits, _unchanged, _width(model), apart=False)


def _unchanged(values: Tensor) -> Tensor:
    return values


def _trained(layer: nn.Module) -> tuple[Tensor, ...]:
    return tuple(parameter for parameter in layer.parameters() if parameter.requires_grad)


def _width(model: nn.Module) -> int:
    layer: Any = getattr(model, "get_output_embeddings", lambda: None)()
    if layer is not None and hasattr(layer, "weight"):
        return int(layer.weight.shape[0])
    config: Any = model.config
    return int(config.get_text_config().vocab_size)


def _is_the_same(model: nn.Module, split: SplitModel) -> bool:
    device = next(model.parameters()).device
    ids = torch.arange(_PROBE, device=device)[None] % split.columns
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    training = model.training
    model.eval()  # Dropout would make any two passes differ.
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            whole = model(**inputs, use_cache=False).logits
            own = split.head(split.hidden(inputs))
            # Bit for bit: the same product on the same numbers. A soft cap on small logits differs in the last bits only.
            # NaN is equal to NaN here: it is reported where the model is used.
            return own.shape == whole.shape and torch.allclose(own, whole, rtol=0, atol=0, equal_nan=True)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False
    finally:
        model.train(training)
