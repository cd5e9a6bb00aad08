"""The student's head, a linear layer, with its products and gradients written out instead of left to autograd.

That way the logits can be overwritten by their gradient, the weight is converted to the format of the products once per
batch, and sums of gradients lie in memory that is kept from step to step (`distillkit.device.buffers`).

Shapes: n rows, D the hidden size, V columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distillkit.device.buffers import Buffers, linear_rows
from distillkit.device.number_formats import product_format, sum_format

# Numbers of the weight's gradient that are computed and added at a time.
_NUMBERS_AT_ONCE = 1 << 21


class LinearHead:
    """A linear layer in training.

    Between `begin` and `hand_over` lies one batch: `logits`, then `backward` with their gradient, chunk by chunk.

    Args:
        layer: the head; `is_plain` tells whether it will do.
        directly: put gradients into the parameters' `.grad` themselves instead of returning them. That saves a copy of
            the largest gradient of a small model, and is right wherever nothing hooks on to the way through autograd
            (training in several processes does).
    """

    def __init__(self, layer: nn.Linear, *, directly: bool = False) -> None:
        self.layer = layer
        self.directly = directly
        self._buffers = Buffers()
        self._weight: Tensor = layer.weight
        self._bias: Tensor | None = layer.bias
        self._hidden: Tensor = layer.weight
        self._sums: dict[int, Tensor] = {}
        self._begun = False

    @property
    def trained(self) -> tuple[nn.Parameter, ...]:
        """The parameters that are trained, as they are now (`models.backbone_and_head.SplitModel.parameters`)."""
        return tuple(value for value in self.layer.parameters() if value.requires_grad)

    @staticmethod
    def is_plain(layer: object) -> bool:
        """Whether a module is just a linear layer: no subclass that does more, nothing hooked on."""
        return type(layer) is nn.Linear and not (
            layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
        )

    def begin(self, hidden: Tensor) -> None:
        """A new batch, of hidden states in the format and on the device of these, any shape."""
        dtype = product_format(hidden)
        self._weight = self._converted("weight", self.layer.weight.detach(), dtype)
        bias = self.layer.bias
        self._bias = None if bias is None else self._converted("bias", bias.detach(), dtype)
        self._sums = {}
        self._begun = True

    def _converted(self, name: str, values: Tensor, dtype: torch.dtype) -> Tensor:
        if values.dtype == dtype:
            return values
        return self._buffers.take(name, values.shape, dtype, values.device).copy_(values)

    def logits(self, hidden_nD: Tensor) -> Tensor:
        """[n, V] logits of a chunk's hidden states [n, D], overwritten by the next chunk's."""
        self._hidden = hidden_nD.to(self._weight.dtype)
        return linear_rows(self._buffers, "logits", self._hidden, self._weight, self._bias)

    def backward(self, gradient_nV: Tensor) -> Tensor:
        """[n, D] the gradient with respect to the hidden states of the chunk; those with respect to the parameters are
        added up, in fp32 or better.

        Args:
            gradient_nV: [n, V] with respect to the chunk's logits, in their format.
        """
        for parameter in self.trained:
            if parameter is self.layer.weight:
                self._add_weight_gradient(parameter, gradient_nV)
            else:
                bias_gradient = gradient_nV.sum(0, dtype=sum_format(gradient_nV))
                total, begun = self._total(parameter, bias_gradient.dtype)
                total.add_(bias_gradient) if begun else total.copy_(bias_gradient)
        return gradient_nV @ self._weight

    def _add_weight_gradient(self, weight: Tensor, gradient_nV: Tensor) -> None:
        """Some columns of the vocabulary at a time: their sums lie in the cache, and torch makes no fp32 copy of all."""
        total, begun = self._total(weight, sum_format(gradient_nV))
        columns = len(weight) if gradient_nV.device.type != "cpu" else max(1, _NUMBERS_AT_ONCE // weight.shape[1])
        for total_vD, gradient_nv in zip(total.split(columns), gradient_nV.split(columns, 1), strict=True):
            product_vD = torch.mm(gradient_nv.T, self._hidden)
            total_vD.add_(product_vD) if begun else total_vD.copy_(product_vD)

    def _total(self, parameter: Tensor, dtype: torch.dtype) -> tuple[Tensor, bool]:
        """Where the batch's sum for a parameter lies, and whether there is anything in it."""
        begun = id(parameter) in self._sums
        if not begun:
            self._sums[id(parameter)] = self._place(parameter, dtype)
        return self._sums[id(parameter)], begun

    def _place(self, parameter: Tensor, dtype: torch.dtype) -> Tensor:
        """Where the sum of a batch goes: never over memory that an earlier batch of the step has handed over as `.grad`."""
        shape, device = parameter.shape, parameter.device
        first = self._buffers.take(f"sum {id(parameter)}", shape, dtype, device)
        if parameter.grad is None or parameter.grad.data_ptr() != first.data_ptr():
            return first
        return self._buffers.take(f"more {id(parameter)}", shape, dtype, device)

    def hand_over(self, factor: Tensor) -> list[Tensor | None]:
        """The gradients of the parameters: this batch's sums times `factor` [], for autograd; None for each that went to
        `.grad`.

        Raises:
            RuntimeError: the gradients of this batch were handed over before.
        """
        if not self._begun:
            raise RuntimeError("the gradients of a batch can be had only once")
        self._begun = False
        scales = factor.device.type != "cpu" or float(factor) != 1
        gradients: list[Tensor | None] = []
        for parameter in self.trained:
            total = self._sums.pop(id(parameter), None)
            if total is None:
                gradients.append(None)
                continue
            total = (total.mul_(factor) if scales else total).to(parameter.dtype)
            if not self.directly:
                gradients.append(total.clone())
                continue
            gradients.append(None)
            if parameter.grad is None:
                parameter.grad = total
            else:
                parameter.grad.add_(total)
        return gradients
