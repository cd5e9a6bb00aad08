"""A model without weights takes no memory, and has all that is computed from its configuration."""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

import pytest
import torch
import warm_python
from tiny_models import tiny_model

from distillkit.models.empty_model import empty_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen2"])
def test_no_weights_and_the_same_buffers(
    family: Literal["gpt2", "gpt_neox", "llama", "qwen2"], dtype: torch.dtype
) -> None:
    whole: Any = tiny_model(family, 300, layers=2)
    empty = empty_model(whole.config, dtype)
    assert not empty.training
    # Tied weights are two parameters here: their names in the files are looked up one by one.
    assert {name: (value.device.type, value.dtype, value.shape) for name, value in empty.named_parameters()} == {
        name: ("meta", dtype, value.shape) for name, value in whole.named_parameters(remove_duplicate=False)
    }
    buffers = dict(empty.named_buffers())
    assert buffers.keys() == dict(whole.named_buffers()).keys()
    assert all(torch.equal(buffers[name], value) for name, value in whole.named_buffers())


_LIMITED = """
import json, resource
import psutil, torch
from transformers import LlamaConfig
from distillkit.models.empty_model import empty_model

def shape(vocabulary, width, layers):
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4,
    )

empty_model(shape(300, 32, 1), torch.float32)  # What libraries take when they are first used does not count.
used = psutil.Process().memory_info().data
resource.setrlimit(resource.RLIMIT_DATA, (used + (20 << 20),) * 2)
model = empty_model(shape(32_000, 2048, 12), torch.float32)
print(json.dumps([sum(value.nbytes for value in model.parameters()), len(list(model.buffers()))]))
"""


# Elsewhere RLIMIT_DATA is not enforced, or counts mapped files too, and the limit would prove nothing.
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory that counts what is private")
def test_a_model_larger_than_the_limit_on_memory() -> None:
    done = warm_python.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    weights, buffers = json.loads(done.stdout)
    assert weights > 3e9
    assert buffers > 0
