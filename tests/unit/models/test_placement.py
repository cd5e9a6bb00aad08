"""Blocks over several devices: which where, and that accelerate computes the same from there.

The second place of these tests is the disk: there is one device here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from accelerate.utils import check_device_map
from tiny_models import tiny_model

from distillkit.device.precision import choose_compute
from distillkit.models.empty_model import empty_model
from distillkit.models.placement import Placement, device_map, is_spread, spread_blocks
from distillkit.settings.parameters import Parameters
from distillkit.teachers.live import LiveTeacher

CPU = choose_compute(Parameters(no_cuda=True, precision="fp32"))


@pytest.mark.parametrize(
    ("room", "blocks"),
    [
        ({0: 100, 1: 100}, {0: 3, 1: 5}),  # The first has 20 bytes of other weights.
        ({1: 60, 0: 200}, {1: 0, 0: 8}),
        ({0: 1000, 1: 0}, {0: 8}),
        ({0: 30, 1: 40, 2: 40}, {0: 1, 1: 4, 2: 3}),
        ({0: 99}, None),
        ({0: 20, 1: 79}, None),
        ({0: 19, 1: 1000}, None),
        ({0: 20, 1: 1000}, {0: 0, 1: 8}),
    ],
)
def test_devices_are_filled_to_like_shares(room: dict[int, int], blocks: dict[int, int] | None) -> None:
    placement = spread_blocks(8, 10, 20, room)
    assert (None if placement is None else placement.blocks) == blocks
    if placement is not None:
        assert sum(placement.blocks.values()) == 8
        assert sum(placement.bytes.values()) == 100
        assert all(held <= room[device] for device, held in placement.bytes.items())
        assert next(iter(placement.blocks)) == next(iter(room))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_a_spread_teacher_gives_the_states_and_logits_of_a_whole_one(family: str, tmp_path: Path) -> None:
    model: Any = tiny_model(family, 300, layers=3, hidden=32)
    places = device_map(empty_model(model.config, torch.float32), Placement({0: 1, 1: 2}, {}))
    assert len(set(places.values())) == 2
    check_device_map(model, places)  # Every weight has a place.
    ids = torch.arange(24).view(2, 12)
    mask = torch.ones_like(ids)
    whole = LiveTeacher(model, CPU)
    states = whole.hidden_states(ids, mask)
    logits = whole.head(states).clone()
    spread = dispatch_model(
        model,
        {name: ("cpu", "disk")[place] for name, place in places.items()},
        offload_dir=str(tmp_path),
        main_device="cpu",
    )
    assert is_spread(spread)
    teacher = LiveTeacher(spread, CPU)  # Moving it would raise.
    assert torch.equal(teacher.hidden_states(ids, mask), states)
    assert torch.equal(teacher.head(states), logits)
