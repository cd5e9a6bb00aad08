"""Which device and formats a configuration gives."""

from __future__ import annotations

import pytest
import torch

from distillkit.device.precision import Compute, autocasting, choose_compute, cpu_has_bf16
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters


def test_on_the_cpu() -> None:
    plain = choose_compute(Parameters(no_cuda=True, precision="fp32"))
    assert (plain.device.type, plain.autocast, plain.teacher) == ("cpu", None, torch.float32)
    assert plain.description == "cpu, fp32"
    half = choose_compute(Parameters(no_cuda=True, precision="bf16"))
    assert (half.autocast, half.teacher, half.generation) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert half.description == "cpu, bf16"
    auto = choose_compute(Parameters(no_cuda=True, precision="auto"))
    assert auto.autocast == (torch.bfloat16 if cpu_has_bf16() else None)
    with pytest.raises(UsageError, match="fp16 needs a CUDA device"):
        choose_compute(Parameters(no_cuda=True, precision="fp16"))


def test_a_gpu_generates_in_the_format_of_the_weights() -> None:
    compute = Compute(torch.device("cuda"), torch.bfloat16, torch.bfloat16)
    assert compute.generation == torch.bfloat16


def test_autocast_only_where_a_format_is_given() -> None:
    left, right = torch.ones(2, 2), torch.ones(2, 2)
    with autocasting(torch.device("cpu"), torch.bfloat16):
        assert (left @ right).dtype == torch.bfloat16
    with autocasting(torch.device("cpu"), None):
        assert (left @ right).dtype == torch.float32
