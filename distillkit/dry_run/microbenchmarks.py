"""What layers, losses and optimizer steps of the very shapes of a run take on this machine: half a second of measuring.

Everything is timed with made-up weights, a layer or two at a time; nothing is read from or written to disk.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distillkit.device.int8 import quantise_layers
from distillkit.device.precision import Compute, autocasting
from distillkit.device.row_tiles import row_tiles
from distillkit.losses.chunked import rows_per_chunk
from distillkit.losses.kernels import forward_kl_rows
from distillkit.models.empty_model import empty_model
from distillkit.models.pruning import decoder_blocks
from distillkit.models.shape import ModelShape, with_fewer_layers
from distillkit.models.training_attention import quick_attention

_SECONDS = 0.04  # For each figure.
_PROBE_TOKENS = 512
_VOCABULARY = 64
_MOST_OPTIMISED = 4_000_000


@dataclass(frozen=True)
class Timing:
    """Seconds of a call: what it takes anyway, and for each layer."""

    base: float
    layer: float

    def of(self, layers: int) -> float:
        return self.base + self.layer * layers


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """The median of a few calls after one that does not count."""
    call()
    timings: list[float] = []
    began = time.perf_counter()
    while not timings or (time.perf_counter() - began < _SECONDS and len(timings) < 50):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        timings.append(time.perf_counter() - start)
    return statistics.median(timings)


def forward_per_token(
    shape: ModelShape, dtype: torch.dtype, compute: Compute, length: int, rows: int | None = None, *, int8: bool = False
) -> float:
    """Seconds for a token's forward pass through all layers, the head left out.

    Args:
        rows: texts in a batch; default: as many as have about 2048 tokens together.
    """
    length = _readable(shape, length)
    rows = rows or max(1, 2048 // length)
    probe = max(1, min(rows, _PROBE_TOKENS // length or 1))
    timing = _layers(shape, dtype, compute.device, lambda model: _forward(model, probe, length, compute.device), int8)
    # A smaller batch than the real one: what a call takes anyway is paid once for the real batch.
    overhead = _overhead(shape, dtype, compute)
    per_call = timing.of(shape.layers) - overhead.of(shape.layers)
    return max(per_call, 0.0) / (probe * length) + overhead.of(shape.layers) / (rows * length)


def _overhead(shape: ModelShape, dtype: torch.dtype, compute: Compute) -> Timing:
    """Of calls on a single token: next to no arithmetic, for a small model nothing but the calls themselves."""
    timing = _layers(shape, dtype, compute.device, lambda model: _forward(model, 1, 1, compute.device), False)
    reading = _layer_bytes(shape, dtype) / 20e9  # The weights have to be read for the single token, not for the call.
    return Timing(timing.base, max(0.0, timing.layer - reading))


def training_per_token(shape: ModelShape, compute: Compute, length: int, rows: int) -> float:
    """Seconds for a token forwards and backwards through all layers, the head left out."""
    length = _readable(shape, length)
    probe = max(1, min(rows, _PROBE_TOKENS // length or 1))

    def step(model: nn.Module) -> Callable[[], object]:
        model.requires_grad_(True).train()
        ids = torch.ones(probe, length, dtype=torch.long, device=compute.device)
        backbone: Any = model.base_model

        def call() -> None:
            with quick_attention(), autocasting(compute.device, compute.autocast):
                hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state
            hidden.float().sum().backward()
            model.zero_grad(set_to_none=True)

        return call

    return _layers(shape, torch.float32, compute.device, step, False).of(shape.layers) / (probe * length)


def single_token(shape: ModelShape, compute: Compute) -> float:
    """Seconds for one more token of one text, the head left out."""
    step = lambda model: _forward(model, 1, 1, compute.device)  # noqa: E731
    return _layers(shape, compute.generation, compute.device, step, False).of(shape.layers)


def head_seconds(columns: int, width: int, dtype: torch.dtype, device: torch.device, rows: int = 128) -> float:
    """For a row's logits."""
    hidden, weight = (
        torch.ones(rows, width, dtype=dtype, device=device),
        torch.full((columns, width), 0.01, dtype=dtype, device=device),
    )
    return seconds_of(lambda: hidden @ weight.T, device) / rows


def loss_seconds(columns: int, width: int, compute: Compute) -> tuple[float, float]:
    """For a row: (matrix products of the student's head and its two gradients, the element-wise part of the loss, not
    compiled)."""
    device, rows = compute.device, rows_per_chunk(columns, compute.device)
    dtype = compute.autocast or torch.float32
    products = 3 * head_seconds(columns, width, dtype, device, rows)
    logits, wanted = (torch.zeros(rows, columns, dtype=dtype, device=device) for _ in range(2))
    targets = torch.zeros(rows, dtype=torch.long, device=device)
    weights, one = torch.ones(rows, device=device), torch.ones((), device=device)

    def pass_over() -> None:
        for tile in row_tiles(rows, columns, device):
            forward_kl_rows(logits[tile], wanted[tile], targets[tile], weights[tile], one, one, tempered=True)

    return products, seconds_of(pass_over, device) / rows


def optimizer_seconds(parameters: int, device: torch.device) -> float:
    """For a step of AdamW over so many parameters, gradient clipping included."""
    count = min(parameters, _MOST_OPTIMISED)
    weight = nn.Parameter(torch.zeros(count, device=device))
    weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.AdamW([weight], fused=True)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()

    return seconds_of(step, device) * parameters / count


def hashing_rate() -> float:
    """Bytes per second of a digest, which is what checking and writing files is bound by."""
    data = bytes(1 << 22)
    return len(data) / seconds_of(lambda: hashlib.sha256(data).digest(), torch.device("cpu"))


def _readable(shape: ModelShape, length: int) -> int:
    """The run cuts its texts to what a model has positions for; a plan may be made before they are cut."""
    return length if shape.positions is None else max(1, min(length, shape.positions))


def _forward(model: nn.Module, rows: int, length: int, device: torch.device) -> Callable[[], object]:
    ids = torch.ones(rows, length, dtype=torch.long, device=device)
    backbone: Any = model.base_model

    def call() -> object:
        with torch.inference_mode():
            return backbone(input_ids=ids, use_cache=False)

    return call


def _layers(
    shape: ModelShape,
    dtype: torch.dtype,
    device: torch.device,
    make: Callable[[nn.Module], Callable[[], object]],
    int8: bool,
) -> Timing:
    """From models of one and of two layers."""
    seconds = []
    for layers in (1, 2):
        model = _model(shape.config, layers, dtype, device)
        if int8:
            quantise_layers(decoder_blocks(model)[2])
        seconds.append(seconds_of(make(model), device))
    layer = max(seconds[1] - seconds[0], 0.25 * seconds[1])  # Noise must not make layers free.
    return Timing(max(0.0, seconds[0] - layer), layer)


def _layer_bytes(shape: ModelShape, dtype: torch.dtype) -> int:
    model = empty_model(_cut(shape.config, 1), dtype)
    return sum(value.numel() for value in decoder_blocks(model)[2].parameters()) * dtype.itemsize


def _model(config: dict[str, Any], layers: int, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """So many layers, with constant weights: what is multiplied does not change how long it takes, but numbers near zero
    that no format holds well would."""
    model = empty_model(_cut(config, layers), dtype)
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            weight = torch.full(value.shape, 0.01, dtype=dtype, device=device)
            setattr(module, name, nn.Parameter(weight, requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    return model


def _cut(config: dict[str, Any], layers: int) -> Any:
    """The configuration with fewer layers and a small vocabulary."""
    from transformers import AutoConfig

    ignored = ("model_type", "quantization_config", "vocab_size")
    changed = {name: value for name, value in with_fewer_layers(config, layers).items() if name not in ignored}
    changed |= {name: None for name in changed if name.endswith("_token_id")}
    return AutoConfig.for_model(config["model_type"], **changed, vocab_size=_VOCABULARY)
