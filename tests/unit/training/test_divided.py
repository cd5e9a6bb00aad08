"""A student that is divided over two processes, as one of them has it; no other is there, so nothing is ever received.

What comes of it: tests/faults/test_several_processes.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import distributed
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from distillkit.errors import PreconditionError
from distillkit.models.located import LocatedModel
from distillkit.models.references import ModelReference
from distillkit.processes.group import Group
from distillkit.settings.parameters import Parameters
from distillkit.training.decisions import check_division
from distillkit.training.divided import DividedStudent

CPU = torch.device("cpu")


@pytest.fixture
def group() -> Iterator[Group]:
    """As process 1: torch remembers which process it is in a mesh, so all tests are it."""
    distributed.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    yield Group(1, 2)
    distributed.destroy_process_group()


def rows_of(values: torch.Tensor, group: Group) -> torch.Tensor:
    """Those of one process."""
    parts = values.chunk(2)
    return parts[group.rank] if group.rank < len(parts) else values[:0]


def test_a_process_has_its_rows_of_every_weight_and_of_every_moment(group: Group, tmp_path: Path) -> None:
    model = tiny_model("llama", 301, layers=2, hidden=16, tie_word_embeddings=True)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    student = DividedStudent(model, CPU, group)
    assert student.whole() is model
    student.divide()
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    for name, value in after.items():
        assert isinstance(value, DTensor)
        assert torch.equal(value.to_local(), rows_of(before[name], group)), name
    # The optimizer of one process, whose state is loaded here.
    whole = torch.optim.AdamW(tiny_model("llama", 301, layers=2, hidden=16, tie_word_embeddings=True).parameters())
    for weights in whole.param_groups[0]["params"]:
        weights.grad = torch.randn_like(weights)
    whole.step()
    torch.save(whole.state_dict(), tmp_path / "optimizer.pt")
    own = torch.optim.AdamW(model.parameters())
    student.load_optimizer(own, tmp_path / "optimizer.pt")
    for weights, value in zip(own.param_groups[0]["params"], whole.param_groups[0]["params"], strict=True):
        moments, wanted = own.state[weights], whole.state[value]
        assert moments["step"] == wanted["step"]
        for name in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(moments[name].to_local(), rows_of(wanted[name], group))
    shapes = {index: values["exp_avg"] for index, values in student.optimizer_state(own)["state"].items()}
    assert all((value is None) != group.leads for value in shapes.values())


def test_the_whole_student_is_a_plain_model_in_process_0(group: Group) -> None:
    model: Any = tiny_model("llama", 300, layers=2, hidden=16, tie_word_embeddings=True)
    kind, parameters = type(model), {name: value.shape for name, value in model.named_parameters()}
    student = DividedStudent(model, CPU, group)
    student.divide()
    whole: Any = student.whole()
    if not group.leads:
        assert whole is model
        return
    assert type(whole) is kind
    assert whole.lm_head.weight is whole.model.embed_tokens.weight
    assert {name: value.shape for name, value in whole.named_parameters()} == parameters
    assert all(value.device == CPU and not isinstance(value, DTensor) for value in whole.parameters())
    assert torch.equal(whole.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    config = Parameters(parallel="fsdp")
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **quantised}), encoding="utf-8")
    student = LocatedModel(ModelReference("folder", "mine", path=tmp_path), tmp_path)
    check_division(config, student, 1)
    with pytest.raises(PreconditionError, match=r"--parallel fsdp: mine is quantised \(bitsandbytes"):
        check_division(config, student, 2)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    check_division(config, student, 2)


def test_a_student_whose_layers_are_not_found_is_divided_as_a_whole(group: Group) -> None:
    model: Any = tiny_model("llama", 300, layers=2, hidden=16)
    model.config.num_hidden_layers = 7
    student = DividedStudent(model, CPU, group)
    assert student.blocks == []
    student.divide()
    assert all(isinstance(value, DTensor) for value in model.parameters())
