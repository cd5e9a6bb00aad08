"""The device and the number formats of a run, chosen from the configuration and what the hardware can do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from distillkit.device.int8 import int8_problem
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters


@dataclass(frozen=True)
class Compute:
    """Where and in which format a run computes.

    Attributes:
        device: cuda, mps or cpu.
        autocast: the format of matrix products in the student's forward pass; None for plain fp32.
        teacher: the format of the frozen teacher's weights.
    """

    device: torch.device
    autocast: torch.dtype | None
    teacher: torch.dtype

    @property
    def generation(self) -> torch.dtype:
        """The format of weights in which a model generates: on a CPU bf16 is many times slower for one token at a time."""
        return torch.float32 if self.device.type == "cpu" else self.teacher

    @property
    def description(self) -> str:
        """Device and format of matrix products, such as "cpu, fp32"."""
        formats = {torch.bfloat16: "bf16", torch.float16: "fp16", None: "fp32"}
        return f"{self.device.type}, {formats[self.autocast]}"


@contextlib.contextmanager
def autocasting(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """torch.autocast on `device`, or nothing where `dtype` is None."""
    if dtype is None:
        yield
    else:
        with torch.autocast(device.type, dtype=dtype):
            yield


def cpu_has_bf16() -> bool:
    """True where the processor multiplies bf16 matrices itself (AVX-512-BF16 or AMX); emulation is slower than fp32."""
    return any(
        bool(getattr(torch.cpu, probe, lambda: False)())
        for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def best_device(no_cuda: bool) -> torch.device:
    """CUDA, else MPS, else the CPU; `no_cuda` forces the CPU."""
    if not no_cuda and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if not no_cuda and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 pays on this device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and cpu_has_bf16()


def choose_compute(config: Parameters) -> Compute:
    """Device and formats for a configuration. `auto` takes bf16 where the hardware has it, else fp32.

    Raises:
        UsageError: fp16 was asked for where there is no CUDA device, or int8 where it cannot be computed.
    """
    device = best_device(config.no_cuda)
    wanted = config.precision
    if wanted == "fp16" and device.type != "cuda":
        raise UsageError(f"--precision fp16 needs a CUDA device, this is {device.type}", hint="use --precision auto")
    if wanted == "auto":
        wanted = "bf16" if has_bf16(device) else "fp32"
    problem = int8_problem(device) if config.teacher_precision == "int8" and config.box_type == "white" else None
    if problem is not None:
        raise UsageError(
            f"--teacher-precision int8 is not possible here: {problem}", hint="use --teacher-precision same"
        )
    autocast = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}[wanted]
    return Compute(device, autocast, autocast or torch.float32)
